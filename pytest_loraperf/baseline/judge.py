"""What this run measured against what a baseline stores, as pure functions."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

from pytest_loraperf.baseline.file import baseline_text
from pytest_loraperf.baseline.record import VERSIONS, Baseline, Measured, Record, Sampled, Subject
from pytest_loraperf.units import format_duration
from pytest_loraperf.verdict.decision import CLEAR_ROUNDS, Decision
from pytest_loraperf.verdict.types import Status, Verdict
from pytest_loraperf.verdict.unpaired import decide_unpaired

CODE = "baseline"
MISSING = "baseline-missing"
STALE = "baseline-stale"
EROSION = "baseline-erosion"
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
        yield _stale(f"the baseline of {subject.name} {_old(record.last, age, terms)}", terms)
    yield _slower(measured, record, record.last, CODE, terms)
    if record.anchor != record.last:
        yield _slower(measured, record, record.anchor, EROSION, terms)


def accepted(measured: Measured, baseline: Baseline) -> Record:
    """Return the record with these samples as the last ones; its anchor and what was edited by hand are kept."""
    kept = baseline.records.get(measured.subject.key)
    if kept is None:
        return Record(subject=measured.subject, last=measured.sampled, anchor=measured.sampled)
    return replace(kept, last=measured.sampled)


def with_accepted(baseline: Baseline, measured: Iterable[Measured]) -> Baseline:
    """Return the baseline with what was measured accepted; records of other classes of machine stay."""
    return Baseline({**baseline.records, **{each.subject.key: accepted(each, baseline) for each in measured}})


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
        return _stale(f"the baseline of {subject.name} is of {told}", terms)
    return Verdict(
        Status.FAIL if terms.strict else Status.SKIPPED,
        MISSING,
        f"no baseline of {subject.name} on {subject.gpu} with these versions, this model and request; "
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


def _slower(measured: Measured, record: Record, then: Sampled, code: str, terms: Terms) -> Verdict:
    now, name = measured.sampled, measured.subject.name
    allowed = _allowed(record, code)
    limit = 1 + max(allowed, record.allow_s / then.median_s)
    by_ratio = now.reference == then.reference and min(len(now.ratios), len(then.ratios)) >= CLEAR_ROUNDS
    found = decide_unpaired(
        *((now.ratios, then.ratios) if by_ratio else (now.samples_s, then.samples_s)), max_ratio=limit
    )
    low, high = found.interval
    span = f"{low:.3f}–{high:.3f}, " if math.isfinite(high) else ""
    basis = f", as ratios to {now.reference}" if by_ratio else ""
    which = "first" if code == EROSION else "last"
    head = (
        f"{name} takes {found.ratio:.3f}× as long as in the {which} accepted run of {then.created} "
        f"({span}{len(now.samples_s)} against {len(then.samples_s)} samples{basis})"
    )
    detail = tuple(
        f"{title}: {' '.join(map(format_duration, each.samples_s))}"
        for title, each in ((then.created, then), ("now", now))
    )
    return _verdict(found, code, head, f"the allowed {limit:.4g}×", detail, limit, terms)


def _allowed(record: Record, code: str) -> float:
    if code == EROSION:
        return MAX_EROSION if record.max_erosion is None else record.max_erosion
    return MAX_SLOWDOWN if record.max_slowdown is None else record.max_slowdown


def _verdict(
    found: Decision, code: str, head: str, allowed: str, detail: tuple[str, ...], limit: float, terms: Terms
) -> Verdict:
    if found.status is Status.PASS:
        faster = code == CODE and found.interval[1] < 1 / limit
        return Verdict(Status.PASS, code, f"{head}, within {allowed}", detail, terms.command if faster else None)
    if found.status is Status.FAIL:
        advice = f"look for what changed, or accept it with: {terms.command}"
        return Verdict(Status.FAIL, code, f"{head}, over {allowed}; {advice}", detail)
    advice = "take more rounds (--loraperf-rounds, --loraperf-max-seconds) on a quieter machine"
    return Verdict(Status.INCONCLUSIVE, code, f"{head}: cannot tell whether it holds {allowed}; {advice}", detail)
