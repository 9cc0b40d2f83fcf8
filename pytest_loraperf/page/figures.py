"""The charts of the page: which there are, what each shows in words, and their drawings for two widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from pytest_loraperf.compare.history import Group
from pytest_loraperf.page import rows
from pytest_loraperf.page.axes import CONFIG, labels, shortened
from pytest_loraperf.page.draw import Spec, svg
from pytest_loraperf.page.over_time import over_time
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.page.tradeoff import memory_name, takeaway, tradeoff
from pytest_loraperf.page.trend import trend
from pytest_loraperf.report.results import Results

WIDE, NARROW, SMALL = 536, 328, 250
"""Pixels: a chart on a desktop, on a phone, and one of many."""


class Chart(NamedTuple):
    """A chart: its name in the page, its title, how it is drawn, and what it says."""

    name: str
    title: str
    spec: Callable[[Results, int], Spec | None]
    says: Callable[[Results], str]


@dataclass(frozen=True)
class Figure:
    """A drawn chart; ``narrow`` is the one for phones."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup


def _ratios(results: Results) -> str:
    found = [each.ratio for each in results.strategies.values() if each.ratio]
    turns = (
        "" if all(each.interleaved for each in found) else " Hollow: measured in turns, not in the same rounds."
    )
    of = ", ".join(sorted({shortened(each.of, 60) for each in found}))
    return f"A generation's time over that of {of}, with its interval; left of 1 is faster.{turns}"


def _setup(_: Results) -> str:
    return "What building took, step by step. The first generation is what it took longer than later ones."


def _denoising(_: Results) -> str:
    return "Median time of a denoising step; where the first is far from the others, something is set up in it."


def _memory(results: Results) -> str:
    kind = memory_name(results)
    what = "what torch reserves and the rest of this process" if kind == "VRAM" else "there is no CUDA here"
    return f"{kind} by phase: {what}. A card must hold the largest of the three."


def _gains(results: Results) -> str:
    if any(each.lora and each.lora.gains for each in results.strategies.values()):
        return "A mark for each layer; 1 is the whole LoRA, 0 none of it."
    return "The layer with the least of the LoRA, and the median layer; 1 is the whole LoRA, 0 none of it."


CHARTS = (
    Chart("tradeoff", "Time against memory", tradeoff, takeaway),
    Chart("ratios", "Time over the reference", rows.ratios, _ratios),
    Chart("memory", "Memory by phase", rows.memory, _memory),
    Chart("setup", "Set-up by step", rows.setup, _setup),
    Chart("denoising", "Denoising steps", rows.denoising, _denoising),
    Chart("gains", "Effect gain of the LoRA", rows.gains, _gains),
)


def figures(results: Results) -> Iterator[Figure]:
    """Yield the charts that the results have something for."""
    for name, title, spec, says in CHARTS:
        wide, narrow = spec(results, WIDE), spec(results, NARROW)
        if wide is not None and narrow is not None:
            caption = says(results)
            yield Figure(name, title, caption, *_drawn(name, f"{title}. {caption}", wide, narrow))


def memories(results: Results) -> list[Figure]:
    """Return a small chart of each strategy whose memory was followed over a generation."""
    drawn = list(over_time(results, SMALL))
    texts = labels([name for name, _ in drawn], 40)
    return [
        Figure(f"over-time-{place}", texts[name], "", drawing, drawing)
        for place, (name, spec) in enumerate(drawn)
        for drawing in (svg(spec, f"over-time-{place}", f"Memory of {texts[name]} over a generation."),)
    ]


def trends(groups: Sequence[Group]) -> dict[str, list[Figure]]:
    """Return by the title of each group a small chart of each strategy that has more than one run."""
    return {group.title: list(_trends(number, group)) for number, group in enumerate(groups)}


def _trends(number: int, group: Group) -> Iterator[Figure]:
    texts = labels(list(group.strategies), 40)
    for place, (name, entries) in enumerate(group.strategies.items()):
        spec = trend(entries, SMALL)
        if spec is not None:
            ident = f"trend-{number}-{place}"
            drawing = svg(spec, ident, f"Median time of {texts[name]} over {len(entries)} runs.")
            yield Figure(ident, texts[name], "", drawing, drawing)


def _drawn(name: str, title: str, wide: Spec, narrow: Spec) -> tuple[Markup, Markup]:
    return svg(wide, f"{name}-wide", title), svg(narrow, f"{name}-narrow", title)


def picture(results: Results) -> Spec | None:
    """Return the charts side by side, two in a row, as one picture; None where there is nothing to draw."""
    drawn = [
        {name: value for name, value in spec.items() if name not in ("padding", "autosize", "config")}
        | {"title": {"text": title, "frame": "bounds", "offset": 16}}
        for _, title, draw, _ in CHARTS
        if (spec := draw(results, WIDE)) is not None
    ]
    if not drawn:
        return None
    head = {"text": shortened(f"{results.model} on {results.machine.name}", 90), "fontSize": 20, "offset": 20}
    return {
        "title": head,
        "concat": drawn,
        "columns": 2,
        "resolve": {"scale": dict.fromkeys(("color", "fill", "stroke", "shape"), "independent")},
        "spacing": 44,
        "padding": 28,
        "background": LIGHT["card"],
        "config": CONFIG | {"background": LIGHT["card"]},
    }
