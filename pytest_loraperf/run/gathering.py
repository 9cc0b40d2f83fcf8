"""From the session to results: plain numbers, ready for the table and for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_loraperf import __version__
from pytest_loraperf.bench.workloads import StrategyWorkload
from pytest_loraperf.measure.rounds import Paired, Rounds
from pytest_loraperf.measure.validity import findings
from pytest_loraperf.report.naming import Built, endings, plain
from pytest_loraperf.report.results import (
    ComparisonRecord,
    Latency,
    LoraCoverage,
    Machine,
    MemoryOverTime,
    OutputComparison,
    Ratio,
    Results,
    SetupStep,
    StepSeconds,
    StrategyResult,
    VerdictRecord,
    Vram,
)
from pytest_loraperf.run.limiting import limit_for
from pytest_loraperf.strategies import REFERENCE
from pytest_loraperf.units import format_duration
from pytest_loraperf.verdict.decision import estimate
from pytest_loraperf.verdict.intervals import median_interval

if TYPE_CHECKING:
    from pytest_loraperf.bench.arm import Arm
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.session import Session


TOO_SHORT = 20e-6
"""Seconds; below this much of what is timed is the clock and the call itself."""


def gather(session: Session) -> Results:
    """Return all that the session measured, or forecast, and judged so far."""
    if session.forecasts:
        from pytest_loraperf.run.forecast_results import forecast_results  # noqa: PLC0415 - only in a forecast

        return forecast_results(session)
    labels = _labels(session)
    strategies = {
        labels[id(bench), name]: _strategy(session, bench, arm)
        for bench in session.benches.values()
        for name, arm in bench.arms.items()
    }
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
            VerdictRecord(
                nodeid=record.nodeid,
                strategy=record.strategy and labels.get((id(record.bench), record.strategy), record.strategy),
                code=verdict.code,
                status=str(verdict.status),
                message=verdict.message,
                tighter=verdict.tighter,
                detail=verdict.detail,
            )
            for record in session.records.values()
            for verdict in record.verdicts
        ),
        comparisons=tuple(_comparisons(session)) if session.measured else (),
        notes=(*session.notes, *_recipe_notes(session), *_validity_notes(session)),
        gpu_budget=session.settings.gpu_budget,
    )


def _labels(session: Session) -> dict[tuple[int, str], str]:
    """Return the name in the results of each strategy of each bench, by the bench's ``id``."""
    benches = list(session.benches.values())
    built = [Built(str(bench.model), bench.adapters.labels) for bench in benches]
    return {
        (id(bench), name): f"{name}{ending}"
        for bench, ending in zip(benches, endings(built), strict=True)
        for name in bench.arms
    }


def _request(session: Session, bench: Bench | None) -> dict[str, Any]:
    """Return the first request that was made, or the default of the model."""
    made = next((record.requests[0] for record in session.records.values() if record.requests), None)
    if made is None and bench is None:
        return {}
    return (made or session.request(bench.model if bench else None)).to_json()


def _recipe_notes(session: Session) -> dict[str, None]:
    """Return what is left out of the adapters, and what the backend left out or could not do, each once."""
    arms = [arm for bench in session.benches.values() for arm in bench.arms.values()]
    matches = [match for arm in arms for match in arm.matches]
    unused = [f"warning: {match.left_out}; the gates are on the rest" for match in matches if match.left_out]
    misnamed = [f"warning: {match.misnamed}" for match in matches if match.misnamed]
    decided = [note for arm in arms for note in arm.recipe.notes]
    found = [f"{arm.name}: {step.effect.note}" for arm in arms for step in arm.setup if step.effect.note]
    return dict.fromkeys([*unused, *misnamed, *decided, *found])


def _validity_notes(session: Session) -> dict[str, None]:
    """Return what makes the samples doubtful, each once."""
    found: dict[str, None] = {}
    for rounds in session.measurer if session.measured else ():
        names = {workload.key: workload.name for workload in rounds.workloads}
        readings = [{names[key]: reading for key, reading in each.items()} for each in rounds.readings]
        if session.device.is_cuda:
            monitor = session.monitor
            said = findings(readings, unexplained=monitor.unexplained, slowdown_c=monitor.slowdown_temperature())
            found |= {f"validity: {each}": None for each in said}
        for key, name in names.items():
            seconds = rounds.seconds(key)
            if seconds and median(seconds) < TOO_SHORT:
                found[
                    f"validity: {name} took {format_duration(median(seconds))}, too short to be timed; "
                    "repeat the work inside the callable"
                ] = None
    return found


def _comparisons(session: Session) -> Iterator[ComparisonRecord]:
    given = {key: record.nodeid for record in session.records.values() for key in record.callables}
    for rounds in session.measurer:
        yield _comparison(rounds, given)


def _comparison(rounds: Rounds, given: Mapping[str, str]) -> ComparisonRecord:
    names = {workload.key: workload.name for workload in rounds.workloads}
    return ComparisonRecord(
        arms=tuple(names.values()),
        interleaved=rounds.interleaved,
        order=tuple(" ".join(names[key] for key in keys) for keys in rounds.order),
        samples_s={
            name: tuple(found[key].seconds if key in found else None for found in rounds.taken)
            for key, name in names.items()
        },
        dropped=rounds.dropped(),
        errors={names[key]: f"{type(error).__name__}: {error}" for key, error in rounds.errors.items()},
        tests={name: given[key] for key, name in names.items() if key in given},
    )


def _place(label: str, order: list[str]) -> int:
    name = plain(label)
    return order.index(name) if name in order else len(order)


def _machine(session: Session) -> Machine:
    # A session that measured nothing never looked at the device, and must not import torch to say so.
    if not session.benches and not session.measured:
        return Machine(device="", name="", driver=None, torch="", backend="", memory_kind="")
    import torch  # noqa: PLC0415 - it is imported already where anything was measured

    device, backend = session.device, session.shop.backend if session.benches else None
    return Machine(
        device=device.torch_name,
        name=device.name,
        driver=device.driver,
        torch=torch.__version__,
        backend=f"{backend.name} {backend.version}" if backend else "",
        memory_kind=session.ledger.meter.kind,
        rates=session.rates,
    )


def _strategy(session: Session, bench: Bench, arm: Arm) -> StrategyResult:
    strategy = arm.recipe.strategy
    taken = _taken(session, bench, arm.name)
    samples = _generation_seconds(taken)
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
        )
        + _first_call(arm, samples, taken.rounds.first.get(taken.workload.key) if taken else None),
        requests=tuple(request.to_json() for request in taken.workload.requests) if taken else (),
        adapters=bench.adapters.labels,
        samples_s=samples,
        gpu_s=_gpu_seconds(taken),
        steps_s=_steps(taken),
        latency=latency_of(samples),
        limit=limit_for(session, arm, taken.workload.requests) if taken else None,
        ratio=_ratio(session, taken, _taken(session, bench, REFERENCE)),
        vram=Vram(
            setup_peak=arm.setup_peak.needed or None,
            resident=arm.resident or None,
            runtime_peak=arm.runtime_peak.needed or None,
            allocated_peak=max(arm.setup_peak.allocated, arm.runtime_peak.allocated) or None,
        ),
        memory=_memory(arm),
        output=_output(bench, arm.name),
        lora=_coverage(arm),
        error=arm.error,
        model=str(bench.model),
    )


def _first_call(arm: Arm, samples: tuple[float, ...], warm_up: float | None) -> tuple[SetupStep, ...]:
    """Return what the first generation took longer than those measured: compilation, allocation, warming up."""
    first = arm.first_generation or warm_up
    if first is None or not samples:
        return ()
    extra = max(0.0, first - median(samples))
    return (SetupStep(step="first generation", seconds=extra, layers=0, layers_total=0, vram_peak=None),)


def latency_of(samples: tuple[float, ...]) -> Latency | None:
    """Return the median of samples in seconds, with its interval."""
    if not samples:
        return None
    return Latency(median_s=median(samples), ci_s=median_interval(samples), rounds=len(samples))


@dataclass(frozen=True)
class _Taken:
    """A strategy's workload, and the rounds that hold its samples."""

    workload: StrategyWorkload
    rounds: Rounds


def _taken(session: Session, bench: Bench, name: str) -> _Taken | None:
    """Return the longest series of rounds of a strategy, of the requests that were measured first."""
    found = [
        _Taken(workload, rounds)
        for rounds in session.measurer
        for workload in rounds.workloads
        if isinstance(workload, StrategyWorkload) and workload.bench is bench and workload.name == name
    ]
    same = (taken for taken in found if taken.workload.key == found[0].workload.key)
    return max(same, key=lambda taken: len(taken.rounds.samples(taken.workload.key)), default=None)


def _generation_seconds(taken: _Taken | None) -> tuple[float, ...]:
    """Return seconds a generation: a test may have called its pipeline several times."""
    if taken is None:
        return ()
    count = len(taken.workload.requests)
    return tuple(seconds / count for seconds in taken.rounds.seconds(taken.workload.key))


def _gpu_seconds(taken: _Taken | None) -> tuple[float, ...]:
    if taken is None:
        return ()
    count = len(taken.workload.requests)
    samples = taken.rounds.samples(taken.workload.key)
    return tuple(each.gpu_seconds / count for each in samples if each.gpu_seconds is not None)


def _steps(taken: _Taken | None) -> StepSeconds | None:
    """Return the medians of the first denoising step, and of the others."""
    steps = [each.steps for each in taken.rounds.samples(taken.workload.key) if each.steps] if taken else []
    if not steps:
        return None
    others = [seconds for each in steps for seconds in each[1:]]
    return StepSeconds(first=median(each[0] for each in steps), others=median(others) if others else None)


def _ratio(session: Session, taken: _Taken | None, reference: _Taken | None) -> Ratio | None:
    """Return the ratio to the reference: of the rounds that they shared, else of those that each had."""
    if taken is None or reference is None or taken.workload.key == reference.workload.key:
        return None
    mine, other = taken.workload.key, reference.workload.key
    shared = session.measurer.pair(mine, other)
    if shared is not None:
        paired = shared.paired(mine, other)
    else:
        samples, others = _generation_seconds(taken), _generation_seconds(reference)
        rounds = min(len(samples), len(others))
        paired = Paired(samples[:rounds], others[:rounds], interleaved=False)
    if not paired.samples:
        return None
    value, interval = estimate(paired.samples, paired.reference)
    return Ratio(of=REFERENCE, value=value, ci=interval, interleaved=paired.interleaved)


def _output(bench: Bench, name: str) -> OutputComparison | None:
    for (arm, reference), found in bench.comparisons.items():
        if arm == name:
            return OutputComparison(reference=reference, **asdict(found))
    return None


def _memory(arm: Arm) -> MemoryOverTime | None:
    if arm.timeline is None:
        return None
    seconds, needed, live = zip(*arm.timeline.moments, strict=True)
    steps = tuple(round(each, 6) for each in arm.timeline.steps)
    return MemoryOverTime(tuple(round(each, 6) for each in seconds), needed, live, steps)


def _coverage(arm: Arm) -> LoraCoverage | None:
    if not arm.matches:
        return None
    matched = {name for match in arm.matches for name in match.matched}
    ranks = {layer.rank for match in arm.matches for layer in match.layers.values()}
    return LoraCoverage(
        layers_matched=len(matched),
        layers_total=max(match.total for match in arm.matches),
        rank=max(ranks, default=None),
        # What is no number is the lowest.
        gain_min=min(arm.gains.values(), key=lambda gain: (not math.isnan(gain), gain), default=None),
        gain_median=median(arm.gains.values()) if arm.gains else None,
    )
