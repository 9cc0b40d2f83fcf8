"""A sweep as lines of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from pytest_loraperf.report.table import MIN_WIDTH, NONE, aligned, one_line, shortened
from pytest_loraperf.units import format_size, four_digits

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results, SweepPoint

BATCH = "batch"
_NAME = 22


def sweep_lines(results: Results, width: int) -> Iterator[str]:
    """Yield a table for each axis, and the errors of the points that have one."""
    for axis in dict.fromkeys(point.axis for point in results.sweep):
        points = sorted((point for point in results.sweep if point.axis == axis), key=attrgetter("value"))
        yield ""
        yield from _table(axis, points)
        for point in points:
            for line in _wrong(point):
                yield from textwrap.wrap(one_line(line), max(width, MIN_WIDTH), subsequent_indent="  ")


def _wrong(point: SweepPoint) -> Iterator[str]:
    if point.error:
        yield f"error in {point.strategy} at {point.axis} {point.value}: {point.error}"
    if point.over:
        yield f"loraperf gpu-budget: {point.over}"


def _table(axis: str, points: list[SweepPoint]) -> Iterator[str]:
    titles = [axis, "strategy", "s/image", "interval", "VRAM runtime"]
    rows = [[*_cells(point)] for point in points]
    if axis == BATCH:
        # The seed's tip: images without reloading share the set-up.
        titles.append("s/image with set-up")
        for row, point in zip(rows, points, strict=True):
            row.append(NONE if point.image_s_with_setup is None else four_digits(point.image_s_with_setup))
    yield from aligned([titles, *rows], left=[1])


def _cells(point: SweepPoint) -> Iterator[str]:
    yield str(point.value)
    yield shortened(one_line(point.strategy), _NAME)
    if point.latency is None:
        yield from ("error", NONE)
    else:
        low, high = point.latency.ci_s
        yield four_digits(point.latency.median_s)
        yield f"[{four_digits(low)}–{four_digits(high)}]"
    yield NONE if point.runtime_peak is None else format_size(point.runtime_peak)
