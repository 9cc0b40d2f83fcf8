"""The plan for a budget: which strategy is the fastest that fits a card, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_loraperf.strategies import CONTROL
from pytest_loraperf.units import format_duration, format_size

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results


def plan_lines(results: Results) -> Iterator[str]:
    """Yield the line that names the fastest strategy within the budget, or the smallest where none fits."""
    budget, found = results.gpu_budget, usable(results)
    if budget is None or not found:
        return
    fitting = {name: each for name, each in found.items() if each[1] <= budget}
    card = f"a card of {format_size(budget)}"
    if fitting:
        best = min(fitting, key=lambda name: fitting[name][0])
        yield f"plan: the fastest of {len(fitting)} that fit {card} is {told(best, fitting)}"
    else:
        least = min(found, key=lambda name: found[name][1])
        yield f"plan: none of {len(found)} fits {card}; the smallest is {told(least, found)}"


WRONG = ("equivalence", "lora-effect")
"""The codes of verdicts on what a strategy gives; others are on what it takes."""


def usable(results: Results) -> dict[str, tuple[float, int]]:
    """Return what could be recommended: seconds a generation, and the bytes that a card must have, by name.

    Strategies that failed or give another output, and known mistakes, are no plan; nor is the control, which has
    no LoRA.
    """
    wrong = {each.strategy for each in results.verdicts if each.status == "FAIL" and each.code in WRONG}
    return {
        name: (each.latency.median_s, each.need)
        for name, each in results.strategies.items()
        if each.latency is not None and each.need and not each.error and not each.mistake
        if name not in {CONTROL, *wrong}
    }


def told(name: str, among: Mapping[str, tuple[float, int]]) -> str:
    """Return a strategy with its time and size."""
    seconds, size = among[name]
    return f"{name}: {format_duration(seconds)} a generation, {format_size(size)}"
