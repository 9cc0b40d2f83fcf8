"""From the session to results: plain numbers, ready for the table and for JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_loraperf import __version__
from pytest_loraperf.measure.pairs import Paired, Taken
from pytest_loraperf.report.results import (
    Latency,
    LoraCoverage,
    Machine,
    OutputComparison,
    Ratio,
    Results,
    SetupStep,
    StrategyResult,
    VerdictRecord,
    Vram,
)
from pytest_loraperf.strategies import REFERENCE
from pytest_loraperf.verdict.decision import decide, median_interval
from pytest_loraperf.workloads import StrategyWorkload

if TYPE_CHECKING:
    from pytest_loraperf.bench import Arm, Bench
    from pytest_loraperf.session import Session


def gather(session: Session) -> Results:
    """Return all that the session measured and judged so far."""
    strategies: dict[str, StrategyResult] = {}
    for number, bench in enumerate(session.benches.values()):
        for name, arm in bench.arms.items():
            label = name if number == 0 else f"{name} ({bench.model})"
            strategies[label] = _strategy(session, bench, arm)
    first = next(iter(session.benches.values()), None)
    order = list(session.strategies)
    return Results(
        plugin_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=session.command,
        machine=_machine(session),
        model=str(first.model) if first else "",
        request=_request(session, first),
        strategies=dict(sorted(strategies.items(), key=lambda pair: _place(pair[0], order))),
        verdicts=tuple(
            VerdictRecord(record.nodeid, record.strategy, verdict.code, str(verdict.status), verdict.message)
            for record in session.records.values()
            for verdict in record.verdicts
        ),
        notes=(*session.notes, *_recipe_notes(session)),
    )


def _request(session: Session, bench: Bench | None) -> dict[str, Any]:
    """Return the first request that was made, or the default of the model."""
    made = next((record.requests[0] for record in session.records.values() if record.requests), None)
    if made is None and bench is None:
        return {}
    return (made or session.request(bench.model if bench else None)).to_json()


def _recipe_notes(session: Session) -> dict[str, None]:
    """Return what the backend left out or could not do, each once."""
    arms = (arm for bench in session.benches.values() for arm in bench.arms.values())
    return dict.fromkeys(note for arm in arms for note in arm.recipe.notes)


def _place(label: str, order: list[str]) -> int:
    name = label.split(" ", maxsplit=1)[0]
    return order.index(name) if name in order else len(order)


def _machine(session: Session) -> Machine:
    # A session without a bench never looked at the device, and must not import torch to say so.
    if not session.benches:
        return Machine(device="", name="", driver=None, torch="", backend="", memory_kind="")
    import torch  # noqa: PLC0415 - it is imported already where there is a bench

    device, backend = session.device, session.shop.backend
    return Machine(
        device=device.torch_name,
        name=device.name,
        driver=device.driver,
        torch=torch.__version__,
        backend=f"{backend.name} {backend.version}",
        memory_kind=session.ledger.meter.kind,
    )


def _strategy(session: Session, bench: Bench, arm: Arm) -> StrategyResult:
    strategy = arm.recipe.strategy
    taken = _taken(session, bench, arm.name)
    samples = taken.samples if taken else ()
    return StrategyResult(
        steps=tuple(str(step) for step in strategy.steps),
        scheme=arm.recipe.scheme,
        scheme_reason=arm.recipe.scheme_reason,
        mistake=strategy.mistake,
        setup=tuple(
            SetupStep(
                step=record.name,
                seconds=record.seconds,
                layers=record.effect.layers,
                layers_total=record.effect.total,
                vram_peak=record.peak,
                note=record.effect.note,
            )
            for record in arm.setup
        ),
        samples_s=samples,
        latency=_latency(samples),
        ratio=_ratio(session, taken, _taken(session, bench, REFERENCE)),
        vram=Vram(
            setup_peak=arm.setup_peak.needed or None,
            resident=arm.resident or None,
            runtime_peak=arm.runtime_peak.needed or None,
            allocated_peak=max(arm.setup_peak.allocated, arm.runtime_peak.allocated) or None,
        ),
        output=_output(bench, arm.name),
        lora=_coverage(arm),
        error=arm.error,
    )


def _latency(samples: tuple[float, ...]) -> Latency | None:
    if not samples:
        return None
    return Latency(median_s=median(samples), ci_s=median_interval(samples), rounds=len(samples))


def _taken(session: Session, bench: Bench, name: str) -> Taken | None:
    """Return the first samples of a strategy, in seconds a generation."""
    for taken in session.measurer.taken:
        workload = taken.workload
        if isinstance(workload, StrategyWorkload) and workload.bench is bench and workload.name == name:
            count = len(workload.requests)
            return Taken(workload, tuple(seconds / count for seconds in taken.samples))
    return None


def _ratio(session: Session, taken: Taken | None, reference: Taken | None) -> Ratio | None:
    """Return the ratio to the reference: of the rounds that they shared, else of those that each had."""
    if taken is None or reference is None or taken.workload.key == reference.workload.key:
        return None
    paired = session.measurer.pair(taken.workload.key, reference.workload.key)
    if paired is None:
        rounds = min(len(taken.samples), len(reference.samples))
        paired = Paired(taken.samples[:rounds], reference.samples[:rounds], interleaved=False)
    found = decide(paired.samples, paired.reference, max_ratio=1.0)
    return Ratio(of=REFERENCE, value=found.ratio, ci=found.interval, interleaved=paired.interleaved)


def _output(bench: Bench, name: str) -> OutputComparison | None:
    for (arm, reference), found in bench.comparisons.items():
        if arm == name:
            return OutputComparison(reference=reference, **asdict(found))
    return None


def _coverage(arm: Arm) -> LoraCoverage | None:
    if not arm.matches:
        return None
    matched = {name for match in arm.matches for name in match.matched}
    ranks = {layer.rank for match in arm.matches for layer in match.layers.values()}
    return LoraCoverage(
        layers_matched=len(matched),
        layers_total=max(match.total for match in arm.matches),
        rank=max(ranks, default=None),
    )
