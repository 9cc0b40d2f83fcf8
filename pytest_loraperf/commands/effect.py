"""``loraperf effect``: whether a LoRA is in the weights, strategy by strategy, outside pytest."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_loraperf.errors import AdapterError, ModelError, StrategyError, said
from pytest_loraperf.report.results import Results, StrategyResult, write_results
from pytest_loraperf.report.table import COLUMNS, MIN_WIDTH, NONE, Column, one_line, strategy_table
from pytest_loraperf.report.terminal import built_on, notes
from pytest_loraperf.run.gathering import gather
from pytest_loraperf.run.judging import judge
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.specs import Gates, LoraEffect
from pytest_loraperf.verdict.effect import worst_layers

if TYPE_CHECKING:
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.options import Settings
    from pytest_loraperf.strategies import Strategies, Strategy

MEANING = "gain: the share of the LoRA's intended effect that is in a layer"


def run_effect(
    settings: Settings,
    command: str,
    names: str,
    min_gain: float,
    tell: Callable[[str], None],
    show: Callable[[str], None],
) -> Results:
    """Build the named strategies one after the other, look for the LoRA in their layers, and show the table.

    A strategy that cannot be built is an error in its row; what was seen of the others is shown and written all
    the same, also when the run is broken off.

    Raises:
        LoraperfError: a name, the model, the device or an adapter cannot be used.
    """
    session = Session(settings, tell=tell, command=command)
    chosen = _using_lora(session.strategies, names)
    bench = session.bench()
    bench.adapters.read()
    try:
        for strategy in chosen:
            _look(session, bench, strategy.name, min_gain)
    finally:
        tell("")
        results = _gathered(session, bench)
        session.close()
        if session.records:
            _hand_over(settings, results, show)
    return results


def _using_lora(strategies: Strategies, names: str) -> tuple[Strategy, ...]:
    """Return the strategies of a list, each once; ``all`` is every one that uses a LoRA."""
    chosen = strategies.select(names)
    without = [strategy.name for strategy in chosen if not strategy.uses_lora]
    if names != "all" and without:
        raise StrategyError(f"strategy {without[0]} uses no LoRA, so there is none to look for; leave it out")
    return tuple(strategy for strategy in chosen if strategy.uses_lora)


def _look(session: Session, bench: Bench, name: str, min_gain: float) -> None:
    record = TestRecord(f"effect::{name}", Gates(effect=LoraEffect(min_gain)), bench=bench, strategy=name)
    try:
        bench.arm(name)
        record.verdicts.extend(judge(session, record))
    except Exception as error:
        # What is wrong with the files is wrong in every strategy; what is wrong with one costs the others nothing.
        if isinstance(error, AdapterError | ModelError) and not session.records:
            raise
        arm = bench.arms[name]
        arm.error = arm.error or said(error)
    finally:
        bench.release(name)
    session.records[record.nodeid] = record


def _gathered(session: Session, bench: Bench) -> Results:
    """Return what was seen, with the gain of every layer; nothing was generated, so there is no request."""
    results = gather(session)
    strategies = {
        name: replace(found, lora=found.lora and replace(found.lora, gains=bench.arms[name].gains))
        for name, found in results.strategies.items()
    }
    matches = [match for arm in bench.arms.values() for match in arm.matches]
    said = dict.fromkeys(note for match in matches for note in (match.left_out, match.misnamed) if note)
    return replace(results, request={}, strategies=strategies, notes=tuple(said))


def _hand_over(settings: Settings, results: Results, show: Callable[[str], None]) -> None:
    if settings.json is not None:
        write_results(settings.json, results)
    for line in effect_lines(results, shutil.get_terminal_size((120, 40)).columns):
        show(line)


def _layers(_: Results, __: str, found: StrategyResult) -> str:
    return f"{found.lora.layers_matched}/{found.lora.layers_total}" if found.lora else NONE


def _rank(_: Results, __: str, found: StrategyResult) -> str:
    return NONE if found.lora is None or found.lora.rank is None else str(found.lora.rank)


def _lowest(_: Results, __: str, found: StrategyResult) -> str:
    return "error" if found.error else _of_gains(min, found)


def _median(_: Results, __: str, found: StrategyResult) -> str:
    return _of_gains(median, found)


def _of_gains(choose: Callable[[Collection[float]], float], found: StrategyResult) -> str:
    gains = _gains(found).values()
    if not gains:
        return NONE
    # What is no number has no order; a layer that has none fails.
    return f"{math.nan if any(map(math.isnan, gains)) else choose(gains):.3f}"


def _gains(found: StrategyResult) -> dict[str, float]:
    gains = found.lora.gains if found.lora else {}
    return {name: math.nan if gain is None else gain for name, gain in gains.items()}


EFFECT_COLUMNS = (
    COLUMNS[0],
    Column("layers", _layers, drop=2),
    Column("rank", _rank, drop=1),
    Column("lowest gain", _lowest),
    Column("median gain", _median, drop=3),
    COLUMNS[-1],
)


def effect_lines(results: Results, width: int) -> Iterator[str]:
    """Yield what was built, the table, and of each strategy that failed the layers that have least of the LoRA."""
    width = max(width, MIN_WIDTH)
    adapters = dict.fromkeys(adapter for each in results.strategies.values() for adapter in each.adapters)
    yield from _wrapped(f"{', '.join(adapters)} in {built_on(results)}", width)
    yield from strategy_table(results, width, EFFECT_COLUMNS)
    yield from _wrapped(MEANING, width)
    for verdict in results.verdicts:
        if verdict.status == "FAIL":
            yield from _wrapped(f"loraperf {verdict.code}: {verdict.message}", width)
            for line in worst_layers(_gains(results.strategies[verdict.strategy or ""])):
                yield from textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
    yield from notes(results.notes, width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(one_line(text), width, subsequent_indent="  ", break_on_hyphens=False)
