"""Time against VRAM: each strategy as a point, those that no other one beats in both, and the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pytest_loraperf.page.axes import CONFIG, axis, labels, scale, shortened
from pytest_loraperf.page.draw import Spec
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.page.placing import place
from pytest_loraperf.page.units import bytes_unit, seconds_unit
from pytest_loraperf.report.plan import usable
from pytest_loraperf.report.results import Results

WITHIN_SIGHT = 4
"""A budget of more than so many times the most that is needed is told in words: a line would squeeze the rest."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 24, 44
_TALL_BELOW = 400
"""Pixels; a chart that is less wide than this is higher than wide, to have room for the names."""


@dataclass(frozen=True)
class Point:
    """A strategy: its seconds a generation and its bytes; on the ``front`` no other one beats it in both."""

    name: str
    seconds: float
    size: int
    mistake: bool
    front: bool = False


def points(results: Results) -> list[Point]:
    """Return the strategies that have both a time and a size, in their order.

    On the front is what no other strategy beats in time and size. Only what could be recommended is on it or beats
    another: no mistake, nor a strategy that gives another output.
    """
    right = usable(results)
    found = [
        Point(name, each.latency.median_s, each.vram.runtime_peak, bool(each.mistake))
        for name, each in results.strategies.items()
        if each.latency and each.latency.median_s > 0 and each.vram.runtime_peak and not each.error
    ]
    rivals = [each for each in found if each.name in right]
    return [
        replace(each, front=each in rivals and not any(_beats(other, each) for other in rivals)) for each in found
    ]


def _beats(one: Point, other: Point) -> bool:
    no_worse = one.seconds <= other.seconds and one.size <= other.size
    return no_worse and (one.seconds, one.size) != (other.seconds, other.size)


def in_sight(results: Results, found: list[Point]) -> bool:
    """Whether the budget is near enough to be drawn."""
    return results.gpu_budget is not None and results.gpu_budget <= WITHIN_SIGHT * max(each.size for each in found)


def tradeoff(results: Results, width: int) -> Spec | None:
    """Return the chart, or None where fewer than two strategies have both; ``width`` is in pixels."""
    found = points(results)
    if len(found) < 2:  # noqa: PLR2004 - one point compares nothing
        return None
    wide, high = width - _LEFT - _RIGHT, (360.0 if width >= _TALL_BELOW else 430.0) - _TOP - _BOTTOM
    budget = [results.gpu_budget] if results.gpu_budget and in_sight(results, found) else []
    time, memory = seconds_unit(each.seconds for each in found), bytes_unit(each.size for each in found)
    marks = max(int(wide / 62), 3)
    across = scale(
        (each.size / memory.size for each in found), marks=marks, include=[b / memory.size for b in budget]
    )
    up = scale((each.seconds / time.size for each in found), marks=6)
    # Those of the front choose their places first.
    found.sort(key=lambda each: (not each.front, each.mistake))
    names = labels([each.name for each in found])
    pixels = [
        (across.place(each.size / memory.size, wide), high - up.place(each.seconds / time.size, high))
        for each in found
    ]
    places = place(pixels, [names[each.name] for each in found], wide, high)
    rows = [
        {
            "x": each.size / memory.size,
            "y": each.seconds / time.size,
            "name": names[each.name],
            "kind": _kind(each),
            "placed": number,
        }
        for number, each in enumerate(found)
    ]
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": across.vega(),
        "axis": axis(across, _title(results, memory.name)),
    }
    y = {"field": "y", "type": "quantitative", "scale": up.vega(), "axis": axis(up, f"{time.name} a generation")}
    layers: list[Spec] = [*_front(x, y), *_points(x, y)]
    layers += [
        {
            "mark": {
                "type": "text",
                "dx": each.dx,
                "dy": each.dy,
                "align": each.align,
                "baseline": "middle",
                **look,
            },
            "transform": [{"filter": f"datum.placed === {number}"}],
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        }
        for number, each in enumerate(places)
        # Each name lies on a stripe of the paper's colour, so that lines behind it do not cross its letters.
        for look in (
            {"stroke": LIGHT["card"], "strokeWidth": 4, "color": LIGHT["card"]},
            {"color": LIGHT["ink" if found[number].front else "soft"]},
        )
    ]
    if budget:
        layers += _budget(budget[0] / memory.size, x)
    return {
        "data": {"values": rows},
        "width": wide,
        "height": high,
        "padding": {"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM},
        "autosize": "none",
        "layer": layers,
        "config": CONFIG,
    }


def memory_name(results: Results) -> str:
    """Return what the bytes are of: VRAM, or tensor bytes where there is no CUDA."""
    return shortened(results.machine.memory_kind, 30) or "VRAM"


def _title(results: Results, unit: str) -> str:
    return f"{memory_name(results)} at run time, {unit}"


def _kind(point: Point) -> str:
    return "front" if point.front else "mistake" if point.mistake else "other"


def _front(x: dict[str, Any], y: dict[str, Any]) -> list[Spec]:
    line = {
        "type": "line",
        "interpolate": "step-after",
        "color": LIGHT["accent"],
        "strokeWidth": 1.5,
        "opacity": 0.55,
    }
    return [
        {
            "mark": line,
            "transform": [{"filter": "datum.kind === 'front'"}],
            "encoding": {"x": x, "y": y, "order": {"field": "x", "type": "quantitative"}},
        }
    ]


def _points(x: dict[str, Any], y: dict[str, Any]) -> list[Spec]:
    looks: dict[str, Spec] = {
        "front": {"shape": "circle", "filled": True, "color": LIGHT["accent"], "size": 90},
        "other": {"shape": "circle", "filled": False, "color": LIGHT["muted"], "size": 70, "strokeWidth": 2},
        "mistake": {
            "shape": "M-.7,-.7L.7,.7M.7,-.7L-.7,.7",
            "filled": False,
            "color": LIGHT["fail"],
            "size": 80,
            "strokeWidth": 2,
        },
    }
    return [
        {
            "mark": {"type": "point", "opacity": 1, **look},
            "transform": [{"filter": f"datum.kind === '{kind}'"}],
            "encoding": {"x": x, "y": y},
        }
        for kind, look in looks.items()
    ]


def _budget(value: float, x: dict[str, Any]) -> list[Spec]:
    data = {"values": [{"x": value}]}
    return [
        {
            "data": data,
            "mark": {"type": "rule", "color": LIGHT["fail"], "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {"x": x},
        },
        {
            "data": data,
            "mark": {"type": "text", "dy": -8, "y": 0, "color": LIGHT["fail"], "text": "budget"},
            "encoding": {"x": x},
        },
    ]


def takeaway(results: Results) -> str:
    """Say in a sentence or two what the chart shows, also to who cannot see it."""
    found = points(results)
    front = [shortened(each.name, 60) for each in sorted(found, key=lambda each: each.size) if each.front]
    said = "Left is smaller, low is faster."
    if front:
        said += f" No other strategy beats {_listed(front)} in both."
    if results.gpu_budget is not None and not in_sight(results, found):
        said += " The budget is far to the right of the chart."
    if any(each.mistake for each in found):
        said += " ✕ is a mistake in the order of steps."
    return said


def _listed(names: list[str]) -> str:
    if len(names) < 2:  # noqa: PLR2004 - nothing to join
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
