"""What ``--loraperf-limits`` asks for: what was measured is counted, and the device's rates are measured, once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from pytest_loraperf.errors import clear_frames, said
from pytest_loraperf.limits import Limit, limit_of, mean

if TYPE_CHECKING:
    from pytest_loraperf.bench.arm import Arm
    from pytest_loraperf.bench.workloads import StrategyWorkload
    from pytest_loraperf.request import Request
    from pytest_loraperf.session import Session


def count_measured(session: Session) -> None:
    """Count each request of each strategy that has samples and was not counted; one that cannot be is noted."""
    if not session.measured:
        return
    from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch

    for rounds in session.measurer:
        for workload in rounds.workloads:
            if isinstance(workload, StrategyWorkload) and rounds.samples(workload.key):
                _count(session, workload)


def _count(session: Session, workload: StrategyWorkload) -> None:
    counts = workload.bench.arms[workload.name].counts
    note = f"{workload.name}: its limit is not known: "
    if any(line.startswith(note) for line in session.notes):
        return
    try:
        for request in workload.requests:
            key = _key(request)
            if key not in counts:
                session.tell(f"{workload.name}: counting operations")
                counts[key] = workload.bench.count(workload.name, request)
                _measure_rates(session, counts[key].operations)
    except Exception as error:  # noqa: BLE001 - a generation under watch may raise anything, and the times are there
        clear_frames(error)
        session.notes[note + said(error)] = None


def _measure_rates(session: Session, dtypes: Collection[str]) -> None:
    known = session.rates
    if known is not None and set(dtypes) <= set(known.operations):
        return
    from pytest_loraperf.measure.rates import measure_rates  # noqa: PLC0415 - imports torch

    session.tell("measuring what the device does in a second")
    with session.lock.held(), session.ledger.aside("rates"):
        session.rates = measure_rates(session.device, session.measurer.watch, dtypes, known)


def limit_for(session: Session, arm: Arm, requests: Sequence[Request]) -> Limit | None:
    """Return the limit of one generation of these requests, None where one was not counted."""
    counts = [arm.counts.get(_key(request)) for request in requests]
    known = [each for each in counts if each is not None]
    if session.rates is None or not known or len(known) < len(counts):
        return None
    return limit_of(mean(known), session.rates)


def _key(request: Request) -> str:
    """Return what requests share that compute the same: all but the seed."""
    return request.with_changes(seed=0).key
