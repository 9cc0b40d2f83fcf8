"""What pytest's summary says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_loraperf.report.table import MIN_WIDTH, one_line, strategy_table

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results


def summary(results: Results, width: int) -> Iterator[str]:
    """Yield what was built on which machine, the strategy table, and the notes."""
    if results.strategies:
        machine = results.machine
        where = f"{machine.name} ({machine.device}), torch {machine.torch}, {machine.backend}"
        yield one_line(f"{results.model} on {where}")[:width]
        yield from strategy_table(results, width)
    yield from notes(results.notes, width)


def notes(found: Iterable[str], width: int) -> Iterator[str]:
    """Yield warnings and errors, wrapped."""
    for note in found:
        yield from textwrap.wrap(one_line(note), max(width, MIN_WIDTH), subsequent_indent="  ")
