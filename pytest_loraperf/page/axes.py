"""What charts share: their look, and axes whose ends are chosen here, to know where a point comes to lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.report.table import one_line

LOG_FROM = 8
"""A logarithmic axis is used where the largest value is so many times the smallest."""
_FINE, _COARSE = (1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5)
_SHORTENED = 24
_LEAST, _MOST = 1e-30, 1e30  # beyond these no unit of a chart leaves a time, a size or a ratio

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, Liberation Sans, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": LIGHT["soft"],
        "titleColor": LIGHT["soft"],
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 400,
        "titlePadding": 8,
        "gridColor": LIGHT["grid"],
        "domainColor": LIGHT["line"],
        "tickColor": LIGHT["line"],
        "labelLimit": 400,
    },
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "labelColor": LIGHT["soft"],
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "direction": "horizontal",
        "symbolSize": 80,
        "labelLimit": 200,
    },
    "text": {"fontSize": 12, "color": LIGHT["ink"]},
    "title": {
        "color": LIGHT["ink"],
        "fontSize": 14,
        "fontWeight": 600,
        "anchor": "start",
        "subtitleColor": LIGHT["soft"],
    },
}


@dataclass(frozen=True)
class Scale:
    """One axis: its ends, whether it is logarithmic, and the values that are marked."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def place(self, value: float, length: float) -> float:
        """Return how far from the low end a value lies, of a ``length`` in pixels; never beyond the ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return length * share  # the share of the high end is 1, as a product divided again may not be

    def vega(self) -> dict[str, Any]:
        """Return the scale for Vega-Lite."""
        return {
            "type": "log" if self.log else "linear",
            "domain": [self.low, self.high],
            "nice": False,
            "zero": False,
            "clamp": True,
        }


def scale(values: Iterable[float], *, marks: int = 6, zero: bool = False, include: Iterable[float] = ()) -> Scale:
    """Return an axis for positive values, at least one; ``zero`` wants a linear one from 0.

    ``include`` are values that must lie on it but have no say in whether it is logarithmic.
    """
    found = _drawable(values)
    log = not zero and max(found) >= LOG_FROM * min(found)
    found += _drawable(include)
    low, high = min(found), max(found)
    if log:
        room = (high / low) ** 0.06
        low, high = low / room, high * room
        return Scale(low, high, True, _log_ticks(low, high, marks))
    if zero:
        low, high = 0.0, high * 1.06
    else:
        room = (high - low) * 0.1 or high * 0.1
        low, high = max(low - room, 0.0), high + room
    return Scale(low, high, False, _linear_ticks(low, high, marks))


def _drawable(values: Iterable[float]) -> list[float]:
    """Return values within what an axis can be drawn for: a file may say anything."""
    return [min(max(value, _LEAST), _MOST) for value in values]


def _log_ticks(low: float, high: float, marks: int) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in (_FINE, _COARSE, (1, 3), (1,)):
        ticks = [round(mantissa * 10.0**decade, 12) for decade in decades for mantissa in mantissas]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= marks:
            return inside
    return inside[:: math.ceil(len(inside) / marks)]


def _linear_ticks(low: float, high: float, marks: int) -> tuple[float, ...]:
    rough = (high - low) / marks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough)
    first = math.ceil(low / step - 1e-9)
    ticks = (round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1))
    return tuple(min(max(tick, low), high) for tick in ticks)  # by as little as rounding puts them outside


def axis(found: Scale, title: str, suffix: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis for Vega-Lite whose labels end in ``suffix``."""
    shown = f"format(datum.value, ',~r') + '{suffix}'"
    return {"title": title, "values": list(found.ticks), "labelExpr": shown, **more}


def labels(names: Sequence[str], limit: int = _SHORTENED) -> dict[str, str]:
    """Return a text for each name that fits beside a chart: one line, cut in the middle, and no two the same."""
    found: dict[str, str] = {}
    for name in names:
        text = shortened(name, limit) or "?"
        number = 2
        while text in found.values():
            text = f"{shortened(name, limit - len(str(number)) - 1)} {number}"
            number += 1
        found[name] = text
    return found


def shortened(text: str, limit: int) -> str:
    """Return text in one line, cut in the middle where it is longer."""
    text = one_line(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"
