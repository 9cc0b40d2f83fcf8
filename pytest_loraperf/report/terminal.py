"""What pytest's summary says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_loraperf.report.plan import plan_lines
from pytest_loraperf.report.table import MIN_WIDTH, one_line, strategy_table

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results


def summary(results: Results, width: int) -> Iterator[str]:
    """Yield what was built on which machine, the strategy table, and the notes."""
    if results.strategies:
        yield built_on(results)[:width]
        yield from strategy_table(results, width)
        yield from notes(_ranking(results), width)
        yield from notes(plan_lines(results), width)
    yield from wins(results, width)
    yield from notes(results.notes, width)


def _ranking(results: Results) -> Iterator[str]:
    from pytest_loraperf.report.ranking import ranking_lines  # noqa: PLC0415 - imports numpy

    yield from ranking_lines(results)


def built_on(results: Results) -> str:
    """Return what was built, on which machine."""
    machine = results.machine
    where = f"{machine.name} ({machine.device}), torch {machine.torch}, {machine.backend}"
    return one_line(f"{results.model} on {where}")


def wins(results: Results, width: int) -> Iterator[str]:
    """Yield the gates that could be stricter, each with the marker to write instead."""
    for verdict in results.verdicts:
        if verdict.tighter is not None:
            line = one_line(f"{verdict.nodeid} passed its {verdict.code} gate by far; it could be:")
            yield from wrapped(line, width)
            yield f"  {one_line(verdict.tighter)}"


def notes(found: Iterable[str], width: int) -> Iterator[str]:
    """Yield warnings and errors, wrapped."""
    for note in found:
        yield from wrapped(one_line(note), width)


def wrapped(line: str, width: int) -> list[str]:
    """Return a line in several where it is long; options that are to be pasted are not cut at their hyphens."""
    return textwrap.wrap(line, max(width, MIN_WIDTH), subsequent_indent="  ", break_on_hyphens=False)
