"""What pytest's header and summary say."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_loraperf import __version__
from pytest_loraperf.report.table import MIN_WIDTH, one_line, strategy_table
from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results
    from pytest_loraperf.session import Session


def header(session: Session) -> str:
    """Return one line: what the run is held to, and on what; the device is looked up only for a budget."""
    settings = session.settings
    if settings.gpu_budget is None:
        return f"loraperf: {__version__}, model {settings.model}, device {settings.device}, no --gpu-budget"
    device = session.device
    budget = f"--gpu-budget={format_size(settings.gpu_budget)} ({settings.gpu_budget} bytes)"
    if not device.is_cuda:
        return f"loraperf: {__version__}, {budget} of counted tensor bytes: no CUDA here, on the CPU"
    return (
        f"loraperf: {__version__}, {budget} of VRAM, {device.torch_name} {device.name} {format_size(device.total)}"
    )


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
