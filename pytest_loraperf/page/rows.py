"""Charts with a row for each strategy: ratios with intervals, denoising steps, memory by phase, set-up, gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_loraperf.page.axes import CONFIG, Scale, axis, labels, scale
from pytest_loraperf.page.draw import Spec
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.page.tradeoff import WITHIN_SIGHT, memory_name
from pytest_loraperf.page.units import bytes_unit, seconds_unit
from pytest_loraperf.report.results import Results
from pytest_loraperf.verdict.effect import MIN_GAIN

ROW = 27
NARROW = 400
"""Pixels; a chart that is less wide than this has shorter names and fewer marks."""
_WIDEST = 30
"""How much further than the ratios themselves their axis goes for the sake of an interval."""
GROUPED = 0.005
"""Gains this near to each other are one mark: a model has hundreds of layers."""

POINT = {"type": "point", "filled": True, "opacity": 1, "size": 75, "color": LIGHT["accent"]}
HOLLOW = {**POINT, "filled": False, "strokeWidth": 2, "fill": LIGHT["card"]}
RULE = {"type": "rule", "strokeWidth": 2, "color": LIGHT["accent"], "opacity": 0.55}
LEGEND_ROOM = 26
"""Pixels of a legend of one line."""


def ratios(results: Results, width: int) -> Spec | None:
    """Return each strategy's time over the reference's, with its interval; hollow where measured in turns."""
    found = {name: each.ratio for name, each in results.strategies.items() if each.ratio and each.ratio.value > 0}
    if not found:
        return None
    values = [each.value for each in found.values()]
    lowest, highest = min(values) / _WIDEST, max(values) * _WIDEST
    ends = {name: [min(max(end, lowest), highest) for end in each.ci] for name, each in found.items()}
    across = scale((end for each in ends.values() for end in each), marks=_marks(width), include=[1.0])
    rows = [
        {"row": name, "x": each.value, "low": ends[name][0], "high": ends[name][1], "shared": each.interleaved}
        for name, each in found.items()
    ]
    x = _x(across, "x", "time over the reference's", "×")
    rest = {"y": "row", "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    layers = [
        _line(1.0, x, LIGHT["soft"]),
        _layer({**RULE, "clip": True}, rest),
        _layer(POINT, {"y": "row", "x": x}, "datum.shared"),
        _layer(HOLLOW, {"y": "row", "x": x}, "!datum.shared"),
    ]
    return _chart(list(found), rows, layers, width)


def denoising(results: Results, width: int) -> Spec | None:
    """Return the median seconds of the first denoising step (hollow) and of the others (full)."""
    found = {
        name: each.steps_s for name, each in results.strategies.items() if each.steps_s and each.steps_s.first > 0
    }
    times = [time for each in found.values() for time in (each.first, each.others) if time and time > 0]
    if not times:
        return None
    unit = seconds_unit(times)
    across = scale((time / unit.size for time in times), marks=_marks(width))
    rows = [
        {"row": name, "x": time / unit.size, "which": which, "other": (each.others or each.first) / unit.size}
        for name, each in found.items()
        for which, time in (("the others", each.others), ("first step", each.first))
        if time and time > 0
    ]
    x = _x(across, "x", f"{unit.name} a step")
    shape = _kinds(
        width, {"first step": (LIGHT["card"], LIGHT["accent"]), "the others": (LIGHT["accent"], LIGHT["accent"])}
    )
    layers = [
        _layer(RULE, {"y": "row", "x": x, "x2": {"field": "other"}}),
        _layer({**POINT, "strokeWidth": 2}, {"y": "row", "x": x, **shape}),
    ]
    return _chart(list(found), rows, layers, width, LEGEND_ROOM)


MEMORY = {"setup_peak": "set-up peak", "resident": "resident", "runtime_peak": "run-time peak"}
PHASE_LOOKS = {
    "setup_peak": (LIGHT["card"], LIGHT["muted"]),
    "resident": (LIGHT["muted"], LIGHT["muted"]),
    "runtime_peak": (LIGHT["accent"], LIGHT["accent"]),
}
"""The fill and the edge of the point of each phase."""


def memory(results: Results, width: int) -> Spec | None:
    """Return the bytes of each strategy by phase, and the budget."""
    sizes = {
        name: {phase: size for phase in MEMORY if (size := getattr(each.vram, phase))}
        for name, each in results.strategies.items()
    }
    found = {name: each for name, each in sizes.items() if each}
    if not found:
        return None
    unit = bytes_unit(size for each in found.values() for size in each.values())
    most = max(size for each in found.values() for size in each.values())
    budget = results.gpu_budget if results.gpu_budget and results.gpu_budget <= WITHIN_SIGHT * most else None
    values = [size / unit.size for each in found.values() for size in each.values()]
    across = scale(values, marks=_marks(width), include=[budget / unit.size] if budget else [])
    rows = [
        {
            "row": name,
            "x": size / unit.size,
            "which": MEMORY[phase],
            "low": min(each.values()) / unit.size,
            "high": max(each.values()) / unit.size,
        }
        for name, each in found.items()
        for phase, size in each.items()
    ]
    x = _x(across, "x", f"{memory_name(results)}, {unit.name}")
    there = [phase for phase in MEMORY if any(phase in each for each in found.values())]
    looks = _kinds(
        width,
        {MEMORY[phase]: PHASE_LOOKS[phase] for phase in there},
        shapes=["diamond" if phase == "resident" else "circle" for phase in there],
    )
    layers = [
        _layer(
            {**RULE, "color": LIGHT["muted"]}, {"y": "row", "x": {**x, "field": "low"}, "x2": {"field": "high"}}
        ),
        _layer({**POINT, "strokeWidth": 2}, {"y": "row", "x": x, **looks}),
    ]
    if budget:
        layers += [_line(budget / unit.size, x, LIGHT["fail"], "budget")]
    return _chart(list(found), rows, layers, width, LEGEND_ROOM + 16 * (1 + (width < NARROW)))


STEPS = {
    "build": "step-build",
    "attach": "step-attach",
    "fuse": "step-fuse",
    "quantize": "step-quantize",
    "offload": "step-offload",
    "compile": "step-compile",
    "first generation": "step-first",
}
OTHER = "other"


def setup(results: Results, width: int) -> Spec | None:
    """Return how long each step of the set-up took, one after the other."""
    found = {
        name: each.setup for name, each in results.strategies.items() if sum(step.seconds for step in each.setup)
    }
    if not found:
        return None
    totals = [sum(step.seconds for step in each) for each in found.values()]
    unit = seconds_unit(totals)
    across = scale((total / unit.size for total in totals), marks=_marks(width), zero=True)
    rows = [
        {"row": name, "seconds": step.seconds / unit.size, "step": _kind_of(step.step), "place": place}
        for name, each in found.items()
        for place, step in enumerate(each)
    ]
    used = [kind for kind in (*STEPS, OTHER) if any(row["step"] == kind for row in rows)]
    colours = [LIGHT[STEPS.get(kind, "step-other")] for kind in used]
    columns = 2 if width < NARROW else 4
    encoding = {
        "y": "row",
        "x": {**_x(across, "seconds", f"{unit.name}, all steps"), "stack": "zero"},
        "order": {"field": "place", "type": "quantitative"},
        "color": {
            "field": "step",
            "type": "nominal",
            "scale": {"domain": used, "range": colours},
            "legend": {"columns": columns, "symbolType": "square"},
        },
    }
    bars = {"type": "bar", "height": 14, "stroke": LIGHT["card"], "strokeWidth": 1}
    room = 10 + 16 * math.ceil(len(used) / columns)
    return _chart(list(found), rows, [_layer(bars, encoding)], width, room)


def _kind_of(step: str) -> str:
    kind = step.partition("[")[0].strip()
    return kind if kind in STEPS else OTHER


def gains(results: Results, width: int) -> Spec | None:
    """Return the effect gain of each layer where the results have them, else the lowest and the median."""
    lora = {name: each.lora for name, each in results.strategies.items() if each.lora}
    layers = {name: _numbers(each.gains.values()) for name, each in lora.items()}
    found = {
        name: grouped(layers[name]) or dict.fromkeys(_numbers((each.gain_min, each.gain_median)), 1)
        for name, each in lora.items()
    }
    found = {name: each for name, each in found.items() if each}
    if not found:
        return None
    every = [gain for each in found.values() for gain in each]
    low, high = _floor(min(every)), max(1.05, *every)
    across = Scale(low, high, False, tuple(tick for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if low <= tick <= high))
    rows = [
        {"row": name, "x": gain, "layers": count, "low": min(each), "high": max(each)}
        for name, each in found.items()
        for gain, count in each.items()
    ]
    x = _x(across, "x", "effect gain of a layer")
    tick = {"type": "tick", "thickness": 2, "height": 15, "opacity": 0.75, "color": LIGHT["accent"]}
    wanted = f"floor of {MIN_GAIN:g}"
    return _chart(
        list(found),
        rows,
        [
            _line(MIN_GAIN, x, LIGHT["fail"], wanted, align="right"),
            _layer({**RULE, "strokeWidth": 1}, {"y": "row", "x": {**x, "field": "low"}, "x2": {"field": "high"}}),
            _layer(tick, {"y": "row", "x": x}),
        ],
        width,
        18,
    )


def _numbers(gains: Iterable[float | None]) -> list[float]:
    """Return those that are numbers; a layer without one fails its verdict, and is named below the chart."""
    return [gain for gain in gains if gain is not None and math.isfinite(gain)]


def _floor(lowest: float) -> float:
    """Return where the axis of gains begins: at a half where all are above that, else at 0 or below."""
    return min(0.0, lowest) if lowest < 0.5 else 0.5  # noqa: PLR2004 - a half


def grouped(gains: Iterable[float]) -> dict[float, int]:
    """Return the gains to the nearest of steps of ``GROUPED``, and how many layers have each."""
    found: dict[float, int] = {}
    for gain in sorted(gains):
        near = round(round(gain / GROUPED) * GROUPED, 6)
        found[near] = found.get(near, 0) + 1
    return found


def _marks(width: int) -> int:
    return 5 if width < NARROW else 8


def _x(across: Scale, field: str, title: str, suffix: str = "") -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "scale": across.vega(), "axis": axis(across, title, suffix)}


def _kinds(width: int, looks: Mapping[str, tuple[str, str]], shapes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fill, the edge and the shape of each kind of point, and their legend."""
    domain = list(looks)
    fills, edges = ([look[side] for look in looks.values()] for side in (0, 1))
    legend = {"columns": 2 if width < NARROW else 4}
    shape = {"shape": _nominal(domain, list(shapes), legend)} if shapes else {}
    return {"fill": _nominal(domain, fills, legend), "stroke": _nominal(domain, edges, legend), **shape}


def _nominal(domain: list[str], values: list[str], legend: dict[str, Any]) -> dict[str, Any]:
    return {"field": "which", "type": "nominal", "scale": {"domain": domain, "range": values}, "legend": legend}


def _line(value: float, x: dict[str, Any], colour: str, text: str = "", align: str = "right") -> Spec:
    data = {"values": [{x["field"]: value}]}
    rule = {
        "mark": {"type": "rule", "color": colour, "strokeDash": [5, 4], "strokeWidth": 1.25},
        "encoding": {"x": x},
    }
    if not text:
        return {"data": data, **rule}
    words = {"type": "text", "align": align, "dx": 0, "dy": -7, "y": 0, "color": colour, "text": text}
    return {"data": data, "layer": [rule, {"mark": words, "encoding": {"x": x}}]}


def _layer(mark: dict[str, Any], encoding: dict[str, Any], only: str = "") -> Spec:
    """Return a layer; ``"y": "row"`` in the encoding is left for the chart to fill in."""
    return {"mark": mark, "encoding": encoding, **({"transform": [{"filter": only}]} if only else {})}


def _chart(names: list[str], rows: list[dict[str, Any]], layers: list[Spec], width: int, top: int = 0) -> Spec:
    """Return the chart of these layers; ``top`` is room for a legend."""
    texts = labels(names, 19 if width < NARROW else 26)
    y = {
        "field": "row",
        "type": "nominal",
        "sort": None,
        "scale": {"domain": [texts[name] for name in names]},
        "axis": {"title": None, "labelColor": LIGHT["ink"], "labelPadding": 8, "grid": False},
    }
    for layer in layers:
        if layer.get("encoding", {}).get("y"):
            layer["encoding"]["y"] = y
    left = max(len(text) for text in texts.values()) * 6.4 + 16
    return {
        "data": {"values": [{**row, "row": texts[row["row"]]} for row in rows]},
        "width": width - left - 16,
        "height": ROW * len(names),
        "padding": {"left": left, "right": 16, "top": 6 + top, "bottom": 44},
        "autosize": "none",
        "layer": layers,
        "config": CONFIG,
    }
