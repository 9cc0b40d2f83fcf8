"""The properties of a test in JUnit XML: what was measured of it, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from pytest_loraperf.run.judging import arm_phases
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.verdict.decision import estimate
from pytest_loraperf.verdict.intervals import median_interval

if TYPE_CHECKING:
    from pytest_loraperf.measure.rounds import Rounds, Workload

PAIR = 2


def properties(session: Session, record: TestRecord) -> Iterator[tuple[str, str]]:
    """Yield names and values: strategy, seconds, ratio, bytes by phase of VRAM, and the verdicts.

    Seconds are those of all that the test called; intervals are two numbers with a space between.
    """
    if record.strategy is not None:
        yield "strategy", record.strategy
    subject = record.subject if session.measured else None
    if subject is not None:
        yield from _times(session, subject)
    phases = dict(record.charge.phases) if record.charge else {}
    if record.bench is not None and record.strategy is not None:
        phases |= arm_phases(record.bench.arms[record.strategy], record.requests)
    yield from ((f"vram_{phase}_bytes", str(size)) for phase, size in phases.items() if size)
    yield "verdicts", " ".join(f"{verdict.code}={verdict.status}" for verdict in record.verdicts)


def _times(session: Session, subject: Workload) -> Iterator[tuple[str, str]]:
    taken = list(session.measurer.of(subject.key))
    seconds = max((rounds.seconds(subject.key) for rounds in taken), key=len, default=())
    if seconds:
        yield "median_s", f"{median(seconds):.6g}"
        yield "median_interval_s", _interval(median_interval(seconds))
        yield "rounds", str(len(seconds))
    for rounds in taken:
        yield from _ratio(rounds, subject)


def _ratio(rounds: Rounds, subject: Workload) -> Iterator[tuple[str, str]]:
    """Yield the ratio to the other of two arms."""
    if len(rounds.workloads) != PAIR or rounds.keys[0] != subject.key:
        return
    other = rounds.workloads[1]
    both = rounds.paired(subject.key, other.key)
    if both.samples:
        value, interval = estimate(both.samples, both.reference)
        yield "ratio_of", other.name
        yield "ratio", f"{value:.6g}"
        yield "ratio_interval", _interval(interval)


def _interval(bounds: tuple[float, float]) -> str:
    return " ".join(f"{bound:.6g}" for bound in bounds)
