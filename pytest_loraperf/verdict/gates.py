"""The gates on time and memory, as pure functions from numbers to verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pytest_loraperf.units import format_duration, format_size
from pytest_loraperf.verdict.codes import Code
from pytest_loraperf.verdict.decision import Decision, decide
from pytest_loraperf.verdict.types import Status, Verdict

MORE_ROUNDS = (
    "take more rounds (--loraperf-rounds, --loraperf-max-seconds) on a quieter machine, or widen the limit"
)
HOLD_LESS = "hold less at a time, or raise --gpu-budget"
WIN = 0.9
"""A limit could be tightened where the whole interval is below this part of it."""


def judge_latency(arm: str, samples: Sequence[float], limit: float) -> Verdict:
    """Judge seconds against an absolute budget in seconds."""
    found = decide(samples, [limit] * len(samples), max_ratio=1.0)
    low, high = (edge * limit for edge in found.interval)
    rounds = _rounds(found.rounds)
    span = f"{format_duration(low)}–{format_duration(high)}, {rounds}" if math.isfinite(high) else rounds
    head = f"{arm} took {format_duration(found.ratio * limit)} ({span})"
    budget = f"the latency budget of {format_duration(limit)}"
    detail = _samples_detail({arm: samples})
    if found.status is Status.PASS:
        tighter = (
            f'@pytest.mark.latency_budget("{format_seconds(high)}")' if _could_be_tighter(found, 1.0) else None
        )
        return Verdict(Status.PASS, "latency", f"{head}, within {budget}", detail, tighter)
    if found.status is Status.INCONCLUSIVE:
        return Verdict(found.status, "latency", _cannot_tell(head, budget, format_duration(high), found), detail)
    over = f"{found.ratio - 1:.0%} over {budget}"
    return Verdict(Status.FAIL, "latency", f"{head}, {over}; make it faster or raise the budget", detail)


def judge_ratio(
    arm: str, reference: str, found: Decision, limit: float, samples: Mapping[str, Sequence[float]]
) -> Verdict:
    """Judge a ratio of times against ``latency_budget(ratio=limit, of=reference)``."""
    tighter = None
    if arm != reference and _could_be_tighter(found, limit):
        tighter = f'@pytest.mark.latency_budget(ratio={format_limit(found.interval[1])}, of="{reference}")'
    head = f"{arm} took {_times(found)} the time of {reference}"
    return _ratio_verdict("latency", head, f"the latency budget of {limit:.4g}×", found, samples, tighter)


def judge_faster(
    arm: str, reference: str, found: Decision, by: float, samples: Mapping[str, Sequence[float]]
) -> Verdict:
    """Judge a ratio of times against ``faster_than(reference, by=by)``."""
    tighter = None
    if _could_be_tighter(found, 1 - by):
        tighter = f'@pytest.mark.faster_than("{reference}", by="{math.floor(100 * (1 - found.interval[1]))}%")'
    head = f"{arm} took {_times(found)} the time of {reference}"
    wanted = f"the wanted {1 - by:.4g}× (faster by at least {by:.0%})" if by else "the wanted 1× (no slower)"
    return _ratio_verdict("faster-than", head, wanted, found, samples, tighter)


def judge_vram(arm: str, phase: str, used: int, limit: int, phases: Mapping[str, int], kind: str) -> Verdict:
    """Judge the bytes of one phase against a budget; ``kind`` says what was counted."""
    wide = max(8, *map(len, phases)) if phases else 0
    detail = tuple(f"{name:<{wide}} {format_size(size)}" for name, size in phases.items())
    head = f"{arm} needs {format_size(used)} of {kind} ({phase})"
    if used <= limit:
        return Verdict(Status.PASS, "vram", f"{head}, within the budget of {format_size(limit)}", detail)
    return Verdict(
        Status.FAIL,
        "vram",
        f"{head}, {format_size(used - limit)} over the budget of {format_size(limit)}; "
        "quantize, offload, or raise the budget",
        detail,
    )


def judge_card(
    who: str,
    used: int,
    phase: str,
    budget: int,
    kind: str,
    parts: Mapping[str, int],
    fitting: Mapping[str, tuple[int, float | None]] | None,
    untried: str | None = None,
) -> Verdict:
    """Judge what ``who``, a test or a strategy, needed against ``--gpu-budget``.

    ``fitting`` are strategies known to fit, the fastest first: bytes, and the seconds of a generation if known.
    It is None in a suite of other code. ``untried`` is a strategy to try where none is known to fit.
    """
    if used <= budget:
        return Verdict(
            Status.PASS,
            "gpu-budget",
            f"{format_size(used)} of {kind}, within --gpu-budget={format_size(budget)}",
        )
    fits = HOLD_LESS if fitting is None else _known_to_fit(fitting, untried)
    detail = (*(f"{name:<28}{format_size(size):>10}" for name, size in parts.items()), fits)
    return Verdict(
        Status.FAIL,
        "gpu-budget",
        f"{who} needs {format_size(used)} of {kind} ({phase}), {format_size(used - budget)} over "
        f"--gpu-budget={format_size(budget)}; {fits}",
        detail,
    )


def _known_to_fit(fitting: Mapping[str, tuple[int, float | None]], untried: str | None) -> str:
    known = [
        f"{name} ({format_size(size)}{'' if seconds is None else f', {format_duration(seconds)}'})"
        for name, (size, seconds) in fitting.items()
    ]
    if not known:
        advice = f"try {untried}" if untried else HOLD_LESS
        return f"no right strategy measured so far fits; {advice}"
    return f"known to fit, the fastest first: {', '.join(known)}"


def judge_leak(size: int, limit: int, kind: str, holders: Sequence[tuple[str, int]]) -> Verdict:
    """Judge the bytes that a test left behind; ``holders`` are the largest of what holds them."""
    detail = tuple(f"{format_size(held):>10}  {name}" for name, held in holders)
    if size <= limit:
        left = f"the test left {format_size(size)} of {kind} behind" if size else "the test left nothing behind"
        return Verdict(Status.PASS, "vram-leak", f"{left}, within the limit of {format_size(limit)}", detail)
    by = f", held by {holders[0][0]}" if holders else ""
    return Verdict(
        Status.FAIL,
        "vram-leak",
        f"the test left {format_size(size)} of {kind} behind{by}, {format_size(size - limit)} over the limit of "
        f"{format_size(limit)}; let go of it in the test, or raise the limit",
        detail,
    )


def left_behind(test: str, size: int, kind: str) -> str:
    """Tell of what a test left behind where no limit is set."""
    return (
        f"{test} left {format_size(size)} of {kind} behind; tests after it are not charged for that, "
        "--gpu-leak-limit=1MB makes it a failure and names what holds it"
    )


def judge_card_full(when: str, where: str, reason: str, budget: int, parts: Mapping[str, int]) -> Verdict:
    """Tell of a test that ran out of a card of ``budget`` bytes, which a larger one plays.

    ``when`` is the phase of the test, ``where`` the line that asked for more, ``parts`` what held the card.
    """
    return Verdict(
        Status.FAIL,
        "gpu-budget",
        f"the test ran out of a card of {format_size(budget)} in its {when} at {where}: {reason}; "
        "quantize or offload more, or raise --gpu-budget",
        tuple(f"{name:<28}{format_size(size):>10}" for name, size in parts.items()),
    )


def _ratio_verdict(
    code: Code,
    head: str,
    wanted: str,
    found: Decision,
    samples: Mapping[str, Sequence[float]],
    tighter: str | None,
) -> Verdict:
    detail = _samples_detail(samples)
    if found.status is Status.PASS:
        return Verdict(Status.PASS, code, f"{head}, within {wanted}", detail, tighter)
    if found.status is Status.INCONCLUSIVE:
        could = f"{math.ceil(min(found.interval[1], 1e9) * 1000) / 1000:.3f}×"
        return Verdict(found.status, code, _cannot_tell(head, wanted, could, found), detail)
    advice = "look for a step in the wrong order, or raise the limit"
    return Verdict(Status.FAIL, code, f"{head}, over {wanted}; {advice}", detail)


def _cannot_tell(head: str, wanted: str, could: str, found: Decision) -> str:
    held = f", but {could} would be held" if math.isfinite(found.interval[1]) else ""
    return f"{head}: cannot tell whether it holds {wanted}{held}; {MORE_ROUNDS}"


def _could_be_tighter(found: Decision, limit: float) -> bool:
    return found.interval[1] < WIN * limit


def format_seconds(value: float) -> str:
    """Show a limit in seconds that holds ``value``, as ``parse_duration`` reads it."""
    unit, scale = next(
        ((unit, scale) for unit, scale in (("s", 1.0), ("ms", 1e-3)) if value >= scale), ("us", 1e-6)
    )
    return f"{format_limit(value / scale)}{unit}"


def format_limit(value: float) -> str:
    """Show a limit that holds ``value``: two digits, rounded up."""
    scale = 10 ** (math.floor(math.log10(value)) - 1)
    # What is two digits but for rounding is not rounded up.
    return f"{math.ceil(value / scale - 1e-9) * scale:.12g}"


def _times(found: Decision) -> str:
    low, high = found.interval
    span = f"{low:.3f}–{high:.3f}, " if math.isfinite(high) else ""
    return f"{found.ratio:.3f}× ({span}{_rounds(found.rounds)})"


def _rounds(count: int) -> str:
    return f"{count} round" if count == 1 else f"{count} rounds"


def _samples_detail(samples: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    return tuple(f"{name}: {' '.join(format_duration(s) for s in times)}" for name, times in samples.items())
