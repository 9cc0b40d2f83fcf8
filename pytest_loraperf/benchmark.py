"""``loraperf bench``: the strategy table outside pytest, by the same benches and gates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from pytest_loraperf.bench import Bench
from pytest_loraperf.errors import said
from pytest_loraperf.gathering import gather
from pytest_loraperf.judging import judge
from pytest_loraperf.options import Settings
from pytest_loraperf.report.results import Results
from pytest_loraperf.report.terminal import summary
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.specs import Gates, LoraEffect, OutputEquivalent
from pytest_loraperf.strategies import REFERENCE
from pytest_loraperf.workloads import StrategyWorkload


def run_benchmark(
    settings: Settings,
    command: str,
    names: str,
    changes: Mapping[str, Any],
    tell: Callable[[str], None],
    show: Callable[[str], None],
) -> Results:
    """Measure the named strategies against the reference and show the table.

    A strategy that cannot be built is an error in its row; the others are measured all the same.

    Raises:
        LoraperfError: a name, the model, the device or the request is not understood.
    """
    session = Session(settings, tell=tell, command=command)
    chosen = session.strategies.select(names)
    if settings.gpu_budget_mode == "cap":
        session.play_card()
    bench = session.bench()
    request = session.request().with_changes(**changes)
    try:
        for strategy in chosen:
            record = TestRecord(
                f"bench::{strategy.name}", Gates(), bench=bench, strategy=strategy.name, requests=[request]
            )
            session.records[record.nodeid] = record
            session.start_test_on_card()
            _measure(session, bench, strategy.name, record)
    finally:
        tell("")
        results = gather(session)
        session.close()
        for line in summary(results, shutil.get_terminal_size((120, 40)).columns):
            show(line)
    return results


def _measure(session: Session, bench: Bench, name: str, record: TestRecord) -> None:
    requests = tuple(record.requests)
    try:
        with session.watch_phase(record, "runtime"):
            bench.generate(name, requests[0])
        reference = StrategyWorkload(bench, REFERENCE, requests)
        session.measurer.against(StrategyWorkload(bench, name, requests), reference)
        strategy = session.strategies[name]
        # What a known mistake costs is in the table; it is no finding.
        effect = LoraEffect(0) if strategy.mistake else None
        record.gates = Gates(effect=effect)
        if name != REFERENCE and strategy.uses_lora:
            record.gates = Gates(equivalent=(OutputEquivalent(REFERENCE),), effect=effect)
        record.verdicts.extend(judge(session, record))
    except Exception as error:  # noqa: BLE001 - what one strategy raises must not cost the others their results
        arm = bench.arms[name]
        arm.error = arm.error or said(error)
