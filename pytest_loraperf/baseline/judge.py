"""What this run measured against what a baseline stores, as pure functions."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from pytest_loraperf.baseline.file import baseline_text
from pytest_loraperf.baseline.record import VERSIONS, Baseline, Measured, Record, Sampled, Subject
from pytest_loraperf.report.table import one_line
from pytest_loraperf.units import format_duration
from pytest_loraperf.verdict.codes import Code
from pytest_loraperf.verdict.decision import CLEAR_ROUNDS, Decision
from pytest_loraperf.verdict.types import Status, Verdict
from pytest_loraperf.verdict.unpaired import decide_unpaired

CODE: Final = "baseline"
MISSING: Final = "baseline-missing"
STALE: Final = "baseline-stale"
EROSION: Final = "baseline-erosion"
MAX_SLOWDOWN = 0.05
"""How much slower than its last accepted samples something may be (0.05: 5 %), unless its record says so."""
MAX_EROSION = 0.10
"""How much slower than its first accepted samples: what creeps by a little with each update is found here."""
_SHOWN = 110


@dataclass(frozen=True)
class Terms:
    """How a run is held to a baseline.

    ``strict`` fails what a baseline cannot say, as in CI; ``today`` is the day of the run, ``max_age_days`` that
    after which a record is stale; ``command`` is what makes or accepts a record.
    """

    strict: bool
    today: date
    command: str
    max_age_days: int = 90


def judge_baseline(measured: Measured, baseline: Baseline, terms: Terms) -> Iterator[Verdict]:
    """Yield the verdicts on what was measured: missing, stale, slower than the last time, slower than at first."""
    subject = measured.subject
    record = baseline.records.get(subject.key)
    if record is None:
        yield _absent(subject, baseline.relatives(subject), terms)
        return
    age = _age(record.last, terms.today)
    if age is None or age > terms.max_age_days:
        yield _stale(f"the baseline of {one_line(subject.name)} {_old(record.last, age, terms)}", terms)
    yield _slower(measured, record, record.last, CODE, terms)
    yield from _reference(measured, record.last)
    if record.anchor != record.last:
        yield _slower(measured, record, record.anchor, EROSION, terms)


def accepted(measured: Measured, baseline: Baseline) -> Record:
    """Return the record with these samples as the last ones; what was edited by hand is kept.

    So is its anchor, unless these are faster by more than a slowdown may be: then it is moved to them.
    """
    kept = baseline.records.get(measured.subject.key)
    if kept is None:
        return Record(subject=measured.subject, last=measured.sampled, anchor=measured.sampled)
    faster = _ratio(measured.sampled, kept.anchor, 1 / (1 + MAX_SLOWDOWN)).status is Status.PASS
    return replace(kept, last=measured.sampled, anchor=measured.sampled if faster else kept.anchor)


def with_accepted(baseline: Baseline, measured: Iterable[Measured]) -> Baseline:
    """Return the baseline with what was measured accepted; all its other records stay."""
    best: dict[str, Measured] = {}
    for each in measured:
        other = best.get(each.subject.key)
        if other is None or _tells_more(each.sampled, other.sampled):
            best[each.subject.key] = each
    new = {key: accepted(each, baseline) for key, each in best.items()}
    return replace(baseline, records={**baseline.records, **new})


def _tells_more(sampled: Sampled, other: Sampled) -> bool:
    """Whether samples are the ones to keep of a subject that several tests measured."""
    return (bool(sampled.reference), len(sampled.samples_s)) > (bool(other.reference), len(other.samples_s))


def changes(before: Baseline, after: Baseline) -> Iterator[str]:
    """Yield the lines of the file that an update changes, as a diff to commit; long lines are cut."""
    lines = difflib.unified_diff(
        baseline_text(before).splitlines(), baseline_text(after).splitlines(), "before", "after", n=1, lineterm=""
    )
    yield from (line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…" for line in lines)


def _absent(subject: Subject, relatives: list[Record], terms: Terms) -> Verdict:
    if relatives:
        near = relatives[0].subject
        told = ", ".join(
            f"{name} {getattr(near, name) or 'none'} (here {getattr(subject, name) or 'none'})"
            for name in VERSIONS
            if getattr(near, name) != getattr(subject, name)
        )
        return _stale(f"the baseline of {one_line(subject.name)} is of {told}", terms)
    return Verdict(
        Status.FAIL if terms.strict else Status.SKIPPED,
        MISSING,
        f"no baseline of {one_line(subject.name)} on {subject.gpu} with these versions, this model and request; "
        f"make it with: {terms.command}",
    )


def _stale(what: str, terms: Terms) -> Verdict:
    return Verdict(
        Status.FAIL if terms.strict else Status.SKIPPED, STALE, f"{what}; make it anew with: {terms.command}"
    )


def _age(sampled: Sampled, today: date) -> int | None:
    """Return the days since, or None where the day is none or yet to come."""
    try:
        age = (today - date.fromisoformat(sampled.created)).days
    except ValueError:
        return None
    # A day of grace: it may be tomorrow where it was made.
    return age if age >= -1 else None


def _old(sampled: Sampled, age: int | None, terms: Terms) -> str:
    if age is None:
        return f"is of {sampled.created!r}, no day up to today"
    return f"is {age} days old ({sampled.created}), over the allowed {terms.max_age_days}"


def _slower(measured: Measured, record: Record, then: Sampled, code: Code, terms: Terms) -> Verdict:
    now, name = measured.sampled, one_line(measured.subject.name)
    allowed = _allowed(record, code)
    # Whoever allows seconds beyond all bounds has a limit all the same.
    limit = min(1 + max(allowed, record.allow_s / then.median_s), sys.float_info.max)
    found = _ratio(now, then, limit)
    low, high = found.interval
    span = f"{low:.3f}–{high:.3f}, " if math.isfinite(high) else ""
    basis = _basis(now, then)
    which, day = "first" if code == EROSION else "last", one_line(then.created)
    head = (
        f"{name} takes {found.ratio:.3f}× as long as in the {which} accepted run of {day} "
        f"({span}{len(now.samples_s)} against {len(then.samples_s)} samples{basis})"
    )
    detail = tuple(
        f"{title}: {' '.join(map(format_duration, each.samples_s))}"
        for title, each in ((then.created, then), ("now", now))
    )
    return _verdict(found, code, head, f"the allowed {limit:.4g}×", detail, limit, terms)


def _by_ratio(now: Sampled, then: Sampled) -> bool:
    return now.reference == then.reference and min(len(now.ratios), len(then.ratios)) >= CLEAR_ROUNDS


def _ratio(now: Sampled, then: Sampled, limit: float) -> Decision:
    if _by_ratio(now, then):
        return decide_unpaired(now.ratios, then.ratios, max_ratio=limit)
    return decide_unpaired(now.samples_s, then.samples_s, max_ratio=limit)


def _basis(now: Sampled, then: Sampled) -> str:
    if _by_ratio(now, then):
        return f", as ratios to {one_line(now.reference)}"
    if now.reference != then.reference:
        beside = (one_line(each.reference) or "nothing" for each in (now, then))
        return ", in seconds, since it ran beside {} and beside {} then".format(*beside)
    return ""


def _reference(measured: Measured, then: Sampled) -> Iterator[Verdict]:
    """Tell where the reference itself became slower: ratios to it hide what slows both down."""
    now = measured.sampled
    if not _by_ratio(now, then):
        return
    found = decide_unpaired(now.reference_s, then.reference_s, max_ratio=1 + MAX_SLOWDOWN)
    if found.status is Status.FAIL:
        yield Verdict(
            Status.SKIPPED,
            CODE,
            f"{one_line(now.reference)}, which {one_line(measured.subject.name)} is compared with, takes "
            f"{found.ratio:.3f}× as long as in the run of {one_line(then.created)}: a slower machine, or a change "
            "that slows both down, which ratios do not show",
        )


def _allowed(record: Record, code: Code) -> float:
    if code == EROSION:
        return MAX_EROSION if record.max_erosion is None else record.max_erosion
    return MAX_SLOWDOWN if record.max_slowdown is None else record.max_slowdown


def _verdict(
    found: Decision, code: Code, head: str, allowed: str, detail: tuple[str, ...], limit: float, terms: Terms
) -> Verdict:
    if found.status is Status.PASS:
        faster = code == CODE and found.interval[1] < 1 / limit
        return Verdict(Status.PASS, code, f"{head}, within {allowed}", detail, terms.command if faster else None)
    if found.status is Status.FAIL:
        advice = f"look for what changed, or accept it with: {terms.command}"
        if code == EROSION:
            advice = "look for what crept in, or raise max_erosion of its record in the file"
        return Verdict(Status.FAIL, code, f"{head}, over {allowed}; {advice}", detail)
    advice = "take more rounds (--loraperf-rounds, --loraperf-max-seconds) on a quieter machine"
    return Verdict(Status.INCONCLUSIVE, code, f"{head}: cannot tell whether it holds {allowed}; {advice}", detail)
