"""``loraperf forecast``: the VRAM of strategies at full size, on a machine without a GPU."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_loraperf.options import Settings
from pytest_loraperf.report.results import Results, StrategyResult, write_results
from pytest_loraperf.report.table import COLUMNS, MIN_WIDTH, NONE, Column, strategy_table
from pytest_loraperf.report.terminal import built_on, notes
from pytest_loraperf.run.forecast_judging import within
from pytest_loraperf.run.forecast_results import forecast_results
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.units import format_size

MEANING = (
    "VRAM: what a card must have in each phase, allocator and CUDA context included; live: the most that tensors "
    "take. Nothing was run on a GPU."
)


def run_forecast(
    settings: Settings,
    command: str,
    names: str,
    changes: Mapping[str, Any],
    tell: Callable[[str], None],
    show: Callable[[str], None],
) -> Results:
    """Forecast the named strategies one after the other, and show the table.

    What one strategy raises is an error in its row; what was found of the others is shown and written.

    Raises:
        LoraperfError: a name, the model, an adapter or the request cannot be used.
    """
    session = Session(settings._replace(forecast=True), tell=tell, command=command)
    model = session.model()
    request = session.request(model).with_changes(**changes)
    chosen = session.strategies.select(names)
    try:
        for strategy in chosen:
            found = session.forecast(strategy.name, model, settings.adapters, request)
            record = TestRecord(f"forecast::{strategy.name}", strategy=strategy.name, forecast=found)
            session.records[record.nodeid] = record
            if settings.gpu_budget is not None and found.error is None:
                record.verdicts.append(within(found, settings.gpu_budget))
    finally:
        tell("")
        if session.forecasts:
            results = forecast_results(session)
            _hand_over(settings, results, show)
    return results


def _hand_over(settings: Settings, results: Results, show: Callable[[str], None]) -> None:
    if settings.json is not None:
        write_results(settings.json, results)
    for line in forecast_lines(results, shutil.get_terminal_size((120, 40)).columns):
        show(line)


def _size(phase: str) -> Callable[[Results, str, StrategyResult], str]:
    def cell(_: Results, __: str, found: StrategyResult) -> str:
        size = getattr(found.vram, phase)
        return "error" if found.error else NONE if size is None else format_size(size)

    return cell


FORECAST_COLUMNS = (
    COLUMNS[0],
    Column("set-up", _size("setup_peak")),
    Column("resident", _size("resident"), drop=2),
    Column("runtime", _size("runtime_peak")),
    Column("live", _size("allocated_peak"), drop=1),
    COLUMNS[-1],
)


def forecast_lines(results: Results, width: int) -> Iterator[str]:
    """Yield what was forecast for, the table, and why a strategy does not fit."""
    width = max(width, MIN_WIDTH)
    request = results.request
    what = f"{built_on(results)}, {request['height']}×{request['width']}"
    yield from textwrap.wrap(what, width, subsequent_indent="  ", break_on_hyphens=False)
    yield from strategy_table(results, width, FORECAST_COLUMNS)
    yield from textwrap.wrap(MEANING, width, subsequent_indent="  ", break_on_hyphens=False)
    for verdict in results.verdicts:
        if verdict.status == "FAIL":
            line = f"loraperf {verdict.code}: {verdict.message}"
            yield from textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
    yield from notes(results.notes, width)
