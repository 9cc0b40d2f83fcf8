"""What a test measured, as a baseline stores it; measures more where the gates needed too little."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pytest_loraperf.baseline.record import Measured, Sampled, Subject
from pytest_loraperf.host import cpu_name
from pytest_loraperf.strategies import REFERENCE

if TYPE_CHECKING:
    from pytest_loraperf.measure.rounds import Rounds, Workload
    from pytest_loraperf.session import Session, TestRecord

PAIR = 2
ROUNDS = 15
"""Samples of each subject, if the limits on rounds and time allow: runs are compared at one look."""


def measured(session: Session, record: TestRecord, today: date) -> Measured | None:
    """Return what a test measured, or None where it has no gate on time.

    Samples are topped up to ``ROUNDS``, with those of the reference where both were on the device at once.
    """
    subject = record.subject
    if subject is None or record.gates is None or not (record.gates.latency or record.gates.faster):
        return None
    return Measured(_subject(session, record, subject), _sampled(session, subject, today.isoformat()))


def _sampled(session: Session, subject: Workload, created: str) -> Sampled:
    pair = _pair(session, subject)
    rounds = session.measurer.at_least(ROUNDS, *(pair.workloads if pair else (subject,)))
    rounds.raise_error(*rounds.keys)
    if pair is None:
        return Sampled(created=created, samples_s=rounds.seconds(subject.key))
    both = rounds.paired(*rounds.keys)
    name = pair.workloads[1].name
    return Sampled(created=created, samples_s=both.samples, reference=name, reference_s=both.reference)


def _pair(session: Session, subject: Workload) -> Rounds | None:
    """Return the rounds that the subject shared with one other, best with the reference strategy."""
    shared = (rounds for rounds in session.measurer if rounds.interleaved and not rounds.errors)
    pairs = [rounds for rounds in shared if rounds.keys[0] == subject.key and len(set(rounds.keys)) == PAIR]
    return max(pairs, key=lambda rounds: rounds.workloads[1].name == REFERENCE, default=None)


def _subject(session: Session, record: TestRecord, subject: Workload) -> Subject:
    import torch  # noqa: PLC0415 - measuring has imported it

    device = session.device
    gpu = device.name if device.is_cuda else cpu_name()
    driver = (device.driver or "").partition(".")[0]
    bench = record.bench
    if bench is None or record.strategy is None:
        return Subject(name=subject.name, test=record.nodeid, gpu=gpu, driver=driver, torch=torch.__version__)
    backend = bench.shop.backend
    return Subject(
        name=record.strategy,
        gpu=gpu,
        driver=driver,
        torch=torch.__version__,
        backend=f"{backend.name} {backend.version}",
        model=str(bench.model),
        requests=tuple(request.to_json() for request in record.requests),
        adapters=bench.adapters.labels,
        steps=tuple(str(step) for step in bench.arms[record.strategy].recipe.strategy.steps),
    )
