"""From the markers of a test and what it called to verdicts: measures what they need, judges by pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_loraperf.errors import LoraperfError, said
from pytest_loraperf.report.plan import WRONG
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.specs import NOTHING_STAYS, FasterThan, Gates, LatencyBudget, OutputEquivalent, VramBudget
from pytest_loraperf.strategies import CONTROL, SMALLEST
from pytest_loraperf.verdict import Status, Verdict
from pytest_loraperf.verdict.decision import decide
from pytest_loraperf.verdict.effect import MIN_GAIN, judge_effect, no_lora
from pytest_loraperf.verdict.equivalence import Distances, Limits, judge_outputs
from pytest_loraperf.verdict.gates import judge_card, judge_faster, judge_latency, judge_ratio, judge_vram
from pytest_loraperf.verdict.spent import Spent

if TYPE_CHECKING:
    from pytest_loraperf.bench.arm import Arm
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.measure.ledger import Charge
    from pytest_loraperf.measure.rounds import Workload
    from pytest_loraperf.request import Request


def judge(session: Session, record: TestRecord) -> Iterator[Verdict]:
    """Yield the verdict of each gate of a test that has run, each as soon as it is reached.

    Raises:
        LoraperfError: a reference cannot be built, or the test called nothing that could be measured.
        Exception: what a workload raised while it was measured, as it was.
    """
    gates = record.gates or Gates()
    if session.settings.gpu_budget is not None and record.charge is not None:
        yield _card(session, record, record.charge, session.settings.gpu_budget)
    yield from (_vram(session, record, budget) for budget in gates.vram if not _without_a_call(record, budget))
    yield from _effect(record, gates)
    yield from (_equivalent(record, equivalent) for equivalent in gates.equivalent)
    _check_all_judged(record, gates)
    yield from (_latency(session, record, budget) for budget in gates.latency)
    yield from (_faster(session, record, faster) for faster in gates.faster)
    if session.stored is not None:
        yield from session.stored.judge(session, record)
    _follow(session, record)
    if session.settings.limits:
        from pytest_loraperf.run.limiting import count_measured  # noqa: PLC0415 - only where it is asked for

        count_measured(session)


def _follow(session: Session, record: TestRecord) -> None:
    """Look at the memory of a strategy over a generation, once, where its results are written to a file."""
    bench, name, wanted = record.bench, record.strategy, session.settings.json or session.settings.html
    if not wanted or bench is None or name is None or not record.requests or bench.arms[name].timeline is not None:
        return

    try:
        bench.arms[name].timeline = bench.follow(name, record.requests[0])
    except Exception as error:  # noqa: BLE001 - all gates are judged; this draws a chart
        session.notes[f"{name}: its memory over a generation is not known: {said(error)}"] = None


def _subject(record: TestRecord) -> Workload:
    subject = record.subject
    if subject is None:
        raise LoraperfError(
            "the test has a gate but called nothing that can be measured; "
            "call its pipeline, or register a callable with gpu_workload"
        )
    return subject


def _without_a_call(record: TestRecord, budget: VramBudget) -> bool:
    """Whether this holds the run time of a pipeline that was not called, which nothing is known of."""
    has_pipeline = record.bench is not None and record.strategy is not None
    return has_pipeline and budget.phase == "runtime" and not record.requests


def _check_all_judged(record: TestRecord, gates: Gates) -> None:
    """Refuse what no gate is about, once all that can be judged without it is: it would pass whatever it takes.

    Raises:
        LoraperfError: a pipeline was not called, or a callable is measured by no gate on time.
    """
    if any(_without_a_call(record, budget) for budget in gates.vram):
        raise LoraperfError(
            f"the pipeline of {record.strategy} was not called through its fixture (calls of .pipeline are not "
            'seen), so its VRAM at run time is not known; call the fixture, or hold phase="setup" or "resident"'
        )
    subject = record.subject
    if subject is None or not (gates.latency or gates.faster):
        return
    named = {*(each.of for each in gates.latency), *(each.reference for each in gates.faster)}
    left = [name for name, each in record.workloads.items() if each is not subject and name not in named]
    if left:
        raise LoraperfError(
            f"no gate of this test is about {', '.join(left)}: those on time measure {subject.name}, which it "
            "called too; leave out gpu_workload there, or name a reference in the marker (of=, faster_than)"
        )


def _reference(session: Session, record: TestRecord, name: str) -> Workload:
    from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch

    known = record.workloads.get(name)
    if known is not None and known is record.subject:
        raise LoraperfError(
            f"the gate compares {name!r} with itself; register what it is compared with by gpu_workload, "
            "and name that in the marker"
        )
    if known is not None:
        return known
    if record.bench is None or not record.requests:
        registered = ", ".join(record.workloads) or "none"
        raise LoraperfError(f"no workload named {name!r} in this test; registered with gpu_workload: {registered}")
    return StrategyWorkload(record.bench, session.strategies.find(name).name, tuple(record.requests))


def _latency(session: Session, record: TestRecord, budget: LatencyBudget) -> Verdict:
    subject = _subject(record)
    if budget.of is None:
        return judge_latency(subject.name, session.measurer.alone(subject, budget.limit), budget.limit)
    paired = session.measurer.against(subject, _reference(session, record, budget.of), budget.limit)
    found = decide(paired.samples, paired.reference, max_ratio=budget.limit)
    samples = {subject.name: paired.samples, budget.of: paired.reference}
    return judge_ratio(subject.name, budget.of, found, budget.limit, samples)


def _faster(session: Session, record: TestRecord, faster: FasterThan) -> Verdict:
    subject = _subject(record)
    limit = 1 - faster.by
    paired = session.measurer.against(subject, _reference(session, record, faster.reference), limit)
    found = decide(paired.samples, paired.reference, max_ratio=limit)
    samples = {subject.name: paired.samples, faster.reference: paired.reference}
    return judge_faster(subject.name, faster.reference, found, faster.by, samples)


def _vram(session: Session, record: TestRecord, budget: VramBudget) -> Verdict:
    kind = session.ledger.meter.kind
    name, phases = "the test", dict(record.charge.phases) if record.charge else {}
    if record.bench is not None and record.strategy is not None:
        arm = record.bench.arms[record.strategy]
        name, phases = arm.name, arm_phases(arm, record.requests)
        if budget.phase == "setup":
            phases |= {str(step.name): step.peak for step in arm.setup}
    elif budget.phase == "resident":
        raise LoraperfError(f"vram_budget: {NOTHING_STAYS}")
    used = phases.get(budget.phase, 0)
    verdict = judge_vram(name, budget.phase, used, budget.limit, phases, kind)
    return _taken_apart(record, verdict, budget.phase)


def _taken_apart(record: TestRecord, verdict: Verdict, phase: str) -> Verdict:
    """Add what the memory of a phase over its budget is, and what to change about it."""
    if verdict.passed:
        return verdict
    from pytest_loraperf.bench.breakdown import of_arm  # noqa: PLC0415 - only where a budget is not held

    if record.bench is not None and record.strategy is not None:
        name = f"{record.strategy}, "
        found = of_arm(record.bench, record.strategy, phase, record.requests)
    elif record.charge is not None and phase in record.charge.shares:
        name, (live, outside) = "", record.charge.shares[phase]
        found = Spent(live, max(0, record.charge.phases[phase] - live - outside), outside)
    else:
        return verdict
    return replace(verdict, detail=(*verdict.detail, f"{name}{phase} peak:", *found.lines()))


def arm_phases(arm: Arm, requests: Sequence[Request]) -> dict[str, int]:
    """Return the bytes of each VRAM phase of an arm; at run time of a test's requests, not of other tests'."""
    return {
        "setup": arm.setup_peak.needed,
        "resident": arm.resident,
        "runtime": max((arm.request_peaks.get(each.key, 0) for each in requests), default=arm.resident),
    }


def _card(session: Session, record: TestRecord, charge: Charge, budget: int) -> Verdict:
    used, phase = charge.peak
    parts = dict(charge.phases)
    if record.bench is not None and record.strategy is not None:
        arm = record.bench.arms[record.strategy]
        # A pipeline that an earlier test built needed its set-up all the same.
        if arm.setup_peak.needed > used:
            used, phase = arm.setup_peak.needed, "setup"
        parts |= {f"{arm.name} {name}": size for name, size in arm_phases(arm, record.requests).items()}
        parts |= {f"{arm.name} {step.name}": step.peak for step in arm.setup}
    kind = session.ledger.meter.kind
    built = {name for bench in session.benches.values() for name in bench.arms}
    fits = _fitting(session, budget) if built else None
    untried = None if SMALLEST in built else SMALLEST
    verdict = judge_card(record.who, used, phase, budget, kind, parts, fits, untried)
    return _taken_apart(record, verdict, phase)


def _fitting(session: Session, budget: int) -> dict[str, tuple[int, float | None]]:
    """Return the strategies that are known to fit: bytes, and seconds a generation where they are known.

    The fastest come first, those that were not timed last, the smallest of them first. What was seen to give
    another output, or to have lost the LoRA, is not among them.
    """
    wrong = {
        record.strategy
        for record in session.records.values()
        for verdict in record.verdicts
        if verdict.status is Status.FAIL and verdict.code in WRONG
    }
    found = {
        arm.name: (arm.need, min(arm.first_call.values(), default=None))
        for bench in session.benches.values()
        for arm in bench.arms.values()
        if arm.name not in {CONTROL, *wrong}
        and arm.error is None
        and 0 < arm.need <= budget
        and arm.runtime_peak.needed
        if not arm.recipe.strategy.mistake
    }
    if session.measured:
        from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch

        found |= {
            workload.name: (found[workload.name][0], median(seconds) / len(workload.requests))
            for rounds in session.measurer
            for workload in rounds.workloads
            if isinstance(workload, StrategyWorkload)
            if workload.name in found and (seconds := rounds.seconds(workload.key))
        }
    return dict(sorted(found.items(), key=lambda item: (item[1][1] is None, item[1][1] or 0, item[1][0])))


def _effect(record: TestRecord, gates: Gates) -> list[Verdict]:
    """Judge that the LoRA is in the layers of the pipeline that a test uses, whether it asks for that or not."""
    if record.bench is None or record.strategy is None:
        return []
    arm = record.bench.arms[record.strategy]
    if not arm.recipe.strategy.uses_lora:
        return [no_lora(arm.name)] if gates.effect else []
    return [judge_effect(arm.name, arm.gains, gates.effect.min_gain if gates.effect else MIN_GAIN)]


def _equivalent(record: TestRecord, wanted: OutputEquivalent) -> Verdict:
    _subject(record)
    bench, strategy = record.bench, record.strategy
    if bench is None or strategy is None:
        raise LoraperfError("output_equivalent compares the outputs of strategies; use lora_pipeline")
    limits = Limits(wanted.rel_l2, wanted.max_abs, wanted.cosine, wanted.psnr, wanted.image_psnr)
    limits = limits.or_default(bench.arms[strategy].recipe.scheme)
    requests = {request.key: request for request in record.requests}.values()
    if any(request.to_json()["seed"] is None for request in requests):
        raise LoraperfError(
            "output_equivalent: a request has no seed (seed=None), so each generation starts from other noise and "
            "has another output; give it one"
        )
    found = [compare(bench, strategy, wanted.to, request) for request in requests]
    return judge_outputs(strategy, wanted.to, found, limits)


def compare(bench: Bench, name: str, reference: str, request: Request) -> Distances:
    """Measure how far a strategy's output for a request is from another's.

    The share of the LoRA's effect is measured where the reference uses the LoRA, against the control without it.
    """
    from pytest_loraperf.measure.difference import (  # noqa: PLC0415 - imports torch
        difference,
        effect_kept,
        image_difference,
    )

    known = bench.shop.strategies
    known.find(reference)
    output, expected = bench.output(name, request), bench.output(reference, request)
    kept = None
    if known[reference].uses_lora:
        kept = effect_kept(output.latents, expected.latents, bench.output(CONTROL, request).latents)
    image = None
    if output.image is not None and expected.image is not None:
        image = asdict(image_difference(output.image, expected.image))
    latents = asdict(difference(output.latents, expected.latents))
    found = Distances(**latents, effect_kept=kept, image=image)
    bench.comparisons.setdefault((name, reference), found)
    return found
