"""The plan for a budget: which strategy is the fastest that fits a card, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_loraperf.strategies import CONTROL, REFERENCE
from pytest_loraperf.units import format_duration, format_size

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Latency, Results, StrategyResult


WRONG = ("equivalence", "lora-effect")
"""The codes of verdicts on what a strategy gives; others are on what it takes."""


@dataclass(frozen=True)
class Usable:
    """A strategy that could be recommended: seconds a generation, and the bytes that a card must have.

    ``pace`` is what strategies are ranked by, with its interval: the time over the reference's, from rounds that
    both were in, or the seconds where there is no such ratio of all.
    """

    seconds: float
    need: int
    pace: float
    interval: tuple[float, float]


def plan_lines(results: Results) -> Iterator[str]:
    """Yield the line that names the fastest strategy within the budget, or the smallest where none fits."""
    budget, found = results.gpu_budget, usable(results)
    if budget is None or not found:
        return
    fits = fitting(found, budget)
    card = f"a card of {format_size(budget)}"
    if fits:
        yield f"plan: the fastest of {len(fits)} that fit {card} is {told(fastest(fits), fits)}"
    else:
        yield f"plan: none of {len(found)} fits {card}; the smallest is {told(smallest(found), found)}"


def usable(results: Results) -> dict[str, Usable]:
    """Return what could be recommended, by name.

    Strategies that failed or give another output, and known mistakes, are no plan; nor is the control, which has
    no LoRA.
    """
    wrong = {each.strategy for each in results.verdicts if each.status == "FAIL" and each.code in WRONG}
    found = {
        name: each
        for name, each in results.strategies.items()
        if each.latency is not None and each.need and not each.error and not each.mistake
        if name not in {CONTROL, *wrong}
    }
    paired = all(each.ratio is not None or name == REFERENCE for name, each in found.items())
    return {name: _usable(each, each.latency, paired=paired) for name, each in found.items() if each.latency}


def _usable(strategy: StrategyResult, latency: Latency, *, paired: bool) -> Usable:
    if not paired:
        return Usable(latency.median_s, strategy.need, latency.median_s, latency.ci_s)
    if strategy.ratio is None:
        return Usable(latency.median_s, strategy.need, 1.0, (1.0, 1.0))
    return Usable(latency.median_s, strategy.need, strategy.ratio.value, strategy.ratio.ci)


def fitting(found: Mapping[str, Usable], budget: int | None) -> dict[str, Usable]:
    """Return those that fit a card of so many bytes; none where there is no card."""
    return {name: each for name, each in found.items() if budget is not None and each.need <= budget}


def fastest(found: Mapping[str, Usable]) -> str:
    """Return the fastest of one or more."""
    return min(found, key=lambda name: found[name].pace)


def smallest(found: Mapping[str, Usable]) -> str:
    """Return the one of one or more that needs the smallest card."""
    return min(found, key=lambda name: found[name].need)


def told(name: str, among: Mapping[str, Usable]) -> str:
    """Return a strategy with its time and size."""
    each = among[name]
    return f"{name}: {format_duration(each.seconds)} a generation, {format_size(each.need)}"
