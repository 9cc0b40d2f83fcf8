"""Memory over one generation: a small chart of each strategy, all on one scale, with the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from pytest_loraperf.page.axes import CONFIG, axis, scale
from pytest_loraperf.page.draw import Spec
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.page.tradeoff import WITHIN_SIGHT
from pytest_loraperf.page.units import bytes_unit
from pytest_loraperf.report.results import MemoryOverTime, Results

HEIGHT = 110
MARKS = 6
_LEFT, _RIGHT = 48, 12


def steps_of(memory: MemoryOverTime) -> list[float]:
    """Return where in the generation each moment is, in denoising steps.

    The first step is from 0 to 1; before 0 the prompt is encoded, after the last step the image is decoded.
    """
    ends = [memory.seconds[0], *memory.steps_s, memory.seconds[-1]]
    return [_place(moment, ends) for moment in memory.seconds]


def _place(moment: float, ends: list[float]) -> float:
    for number, (start, end) in enumerate(pairwise(ends), -1):
        if moment <= end:
            return number + ((moment - start) / (end - start) if end > start else 0.0)
    return float(len(ends) - 2)


def followed(results: Results) -> dict[str, MemoryOverTime]:
    """Return the strategies whose memory was looked at over a generation."""
    found = {name: each.memory for name, each in results.strategies.items()}
    return {name: each for name, each in found.items() if each and _is_whole(each)}


def _is_whole(memory: MemoryOverTime) -> bool:
    """Whether there is something to draw; a file may say anything."""
    same = len(memory.seconds) == len(memory.needed) == len(memory.live)
    return same and bool(memory.seconds) and max(memory.needed) > 0


def budget_in_sight(results: Results) -> int | None:
    """Return the budget where it is near enough to be drawn."""
    most = max((max(each.needed) for each in followed(results).values()), default=0)
    return results.gpu_budget if results.gpu_budget and results.gpu_budget <= WITHIN_SIGHT * most else None


def over_time(results: Results, width: int) -> Iterator[tuple[str, Spec]]:
    """Yield each strategy that was followed, and its chart; ``width`` is in pixels."""
    found, budget = followed(results), budget_in_sight(results)
    if not found:
        return
    sizes = [size for each in found.values() for size in (*each.needed, *each.live) if size > 0]
    unit = bytes_unit(sizes)
    up = scale((size / unit.size for size in sizes), marks=4, include=[budget / unit.size] if budget else [])
    y = {"type": "quantitative", "scale": up.vega(), "axis": axis(up, unit.name)}
    for name, memory in found.items():
        last = max(len(memory.steps_s) - 1, 0)
        marked = list(range(0, last + 1, max(1, math.ceil(last / MARKS))))
        x = {
            "field": "step",
            "type": "quantitative",
            "scale": {"domain": [-1, last + 1], "nice": False, "zero": False},
            "axis": {"title": "denoising step", "values": marked},
        }
        rows = [
            {"step": step, "needed": needed / unit.size, "live": live / unit.size}
            for step, needed, live in zip(steps_of(memory), memory.needed, memory.live, strict=True)
        ]
        line = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "clip": True}
        layers: list[Spec] = [
            {"mark": {**line, "color": LIGHT[role]}, "encoding": {"x": x, "y": {**y, "field": field}}}
            for field, role in (("live", "muted"), ("needed", "accent"))
        ]
        if budget:
            rule = {"type": "rule", "color": LIGHT["fail"], "strokeDash": [5, 4], "strokeWidth": 1.25}
            data = {"values": [{"budget": budget / unit.size}]}
            layers.append({"data": data, "mark": rule, "encoding": {"y": {**y, "field": "budget"}}})
        chart = {
            "data": {"values": rows},
            "width": width - _LEFT - _RIGHT,
            "height": HEIGHT,
            "padding": {"left": _LEFT, "right": _RIGHT, "top": 8, "bottom": 40},
            "autosize": "none",
            "layer": layers,
            "config": CONFIG,
        }
        yield name, chart


def legend(results: Results) -> str:
    """Return what the charts show, in words."""
    budget = "; dashed: the budget" if budget_in_sight(results) else ""
    if results.machine.memory_kind == "tensor bytes":
        shown = "the bytes of live tensors, as there is no CUDA here"
    else:
        shown = "what a card must have; grey: live tensors alone"
    return (
        f"One generation of each strategy, watched and not timed. Blue: {shown}{budget}. Before step 0 the prompt "
        "is encoded, after the last step the image is decoded."
    )
