"""The plan for a budget: which strategy is the fastest that fits a card, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_loraperf.strategies import CONTROL
from pytest_loraperf.units import format_duration, format_size

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results, StrategyResult


def plan_lines(results: Results) -> Iterator[str]:
    """Yield the line that names the fastest strategy within the budget, or the smallest where none fits.

    Strategies that failed, and known mistakes, are no plan; nor is the control, which has no LoRA.
    """
    budget = results.gpu_budget
    usable = {
        name: each
        for name, each in results.strategies.items()
        if each.latency is not None and each.need and not each.error and not each.mistake and name != CONTROL
    }
    if budget is None or not usable:
        return
    fitting = {name: each for name, each in usable.items() if each.need <= budget}
    card = f"a card of {format_size(budget)}"
    if fitting:
        best = min(fitting, key=lambda name: _seconds(fitting[name]))
        yield f"plan: the fastest of {len(fitting)} that fit {card} is {_told(best, fitting)}"
    else:
        least = min(usable, key=lambda name: usable[name].need)
        yield f"plan: none of {len(usable)} fits {card}; the smallest is {_told(least, usable)}"


def _seconds(found: StrategyResult) -> float:
    return found.latency.median_s if found.latency else 0.0


def _told(name: str, among: Mapping[str, StrategyResult]) -> str:
    return f"{name}: {format_duration(_seconds(among[name]))} a generation, {format_size(among[name].need)}"
