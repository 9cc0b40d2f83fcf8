"""The verdicts of a test whose pipeline was forecast: its VRAM is judged, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.forecast.forecast import Forecast
from pytest_loraperf.run.forecast_results import KIND
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.specs import Gates
from pytest_loraperf.units import format_size
from pytest_loraperf.verdict import Status, Verdict
from pytest_loraperf.verdict.codes import Code
from pytest_loraperf.verdict.gates import judge_vram

NOT_JUDGED = "not judged: a forecast runs nothing on a GPU"
NO_PIPELINE = "not judged: only the pipelines of fixtures are forecast"


def judge_forecast(session: Session, record: TestRecord) -> Iterator[Verdict]:
    """Yield the verdicts on memory, and a SKIPPED one for each other gate, which the summary tells of.

    Raises:
        LoraperfError: the forecast could not be made.
    """
    gates = record.gates or Gates()
    yield from _memory(session, record, gates)
    unjudged: dict[Code, int] = {
        "latency": len(gates.latency),
        "faster-than": len(gates.faster),
        "equivalence": len(gates.equivalent),
        "lora-effect": int(gates.effect is not None),
        "vram-leak": int(gates.leak is not None),
    }
    for code, count in unjudged.items():
        if count:
            session.notes[f"forecast: gates on {code} are {NOT_JUDGED}"] = None
            yield from [Verdict(Status.SKIPPED, code, NOT_JUDGED)] * count


def _memory(session: Session, record: TestRecord, gates: Gates) -> Iterator[Verdict]:
    found = record.forecast
    if found is None:
        for _ in gates.vram:
            session.notes[f"forecast: {record.nodeid}: vram_budget is {NO_PIPELINE}"] = None
            yield Verdict(Status.SKIPPED, "vram", NO_PIPELINE)
        return
    if found.error is not None:
        raise LoraperfError(f"{found.name}: {found.error}")
    if session.settings.gpu_budget is not None:
        yield within(found, session.settings.gpu_budget)
    for budget in gates.vram:
        yield phase_within(found, budget.phase, budget.limit)


def held(record: TestRecord) -> str:
    """Return why the rest of a test whose forecast is made is not run: what was held, or that nothing asked."""
    passed = [verdict.message for verdict in record.verdicts if verdict.status is Status.PASS]
    if record.forecast is not None and not passed:
        used, phase = record.forecast.peak
        passed = [f"{record.forecast.name} needs {format_size(used)} of {KIND} ({phase}), and no budget is given"]
    return f"loraperf: {'; '.join(passed)}; the rest of the test needs a GPU"


def within(found: Forecast, budget: int) -> Verdict:
    """Judge a forecast by the size of a card, in bytes."""
    _, phase = found.peak
    return replace(phase_within(found, phase, budget), code="gpu-budget")


def phase_within(found: Forecast, phase: str, limit: int) -> Verdict:
    """Judge a phase of a forecast by its budget, in bytes; one over it is taken apart."""
    verdict = judge_vram(found.name, phase, found.phases[phase], limit, found.phases, KIND)
    if verdict.passed:
        return verdict
    return replace(verdict, detail=(*verdict.detail, f"{phase} peak:", *found.spent[phase].lines()))
