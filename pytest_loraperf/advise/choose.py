"""Which strategy to take: the fastest, the smallest, and the fastest that fits the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_loraperf.report.plan import fastest, fitting, smallest, told, usable
from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results

FASTEST, SMALLEST = "fastest", "smallest"


def choices(results: Results) -> dict[str, str]:
    """Return what is to be had and by which strategy: ``{"fastest": "fused"}``.

    Strategies that failed, and known mistakes, are never chosen. Without a budget there is no third choice, and
    where nothing fits it, none either.
    """
    found, budget = usable(results), results.gpu_budget
    if not found:
        return {}
    chosen = {FASTEST: fastest(found), SMALLEST: smallest(found)}
    fits = fitting(found, budget)
    if budget is not None and fits:
        chosen[f"{FASTEST} within {format_size(budget)}"] = fastest(fits)
    return chosen


def advice_lines(results: Results, code: Mapping[str, str]) -> Iterator[str]:
    """Yield each choice with its time and size, and then the code of each strategy that was chosen, once.

    ``code`` has it by the name of the strategy; what it lacks has none.
    """
    found, chosen = usable(results), choices(results)
    if not chosen:
        yield "advice: none; nothing was measured that could be recommended"
        return
    width = max(map(len, chosen))
    for what, name in chosen.items():
        others = ", ".join(_as_fast(results, name, what)) if what != SMALLEST else ""
        doubt = f"; these may be as fast: {others}" if others else ""
        yield f"{what.ljust(width)}  {told(name, found)}{doubt}"
    if results.gpu_budget is not None and len(chosen) == 2:  # noqa: PLR2004 - the two that need no budget
        yield f"nothing fits a card of {format_size(results.gpu_budget)}"
    for name in dict.fromkeys(name for name in chosen.values() if name in code):
        yield ""
        yield f"# --- {name}: {', '.join(what for what, other in chosen.items() if other == name)} ---"
        yield from code[name].splitlines()


def _as_fast(results: Results, name: str, what: str) -> Iterator[str]:
    """Yield the others whose interval reaches that of the chosen one: of those that fit, where that counts."""
    found = usable(results)
    among = found if what == FASTEST else fitting(found, results.gpu_budget)
    for other, each in among.items():
        if other != name and each.interval[0] <= found[name].interval[1]:
            yield other
