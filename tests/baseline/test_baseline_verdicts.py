"""Verdicts against stored samples: each can fail, and noise alone trips none."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from pytest_loraperf.baseline.judge import Terms, accepted, changes, judge_baseline, with_accepted
from pytest_loraperf.baseline.record import Baseline, Measured, Record, Sampled, Subject
from pytest_loraperf.verdict.types import Status, Verdict

TODAY = date(2026, 11, 24)
TERMS = Terms(strict=True, today=TODAY, command="pytest --update")
SUBJECT = Subject(
    name="fused", gpu="H100", driver="580", torch="2.11.0", backend="diffsynth 2.1.12", model="synthetic:full"
)


def sampled(seconds: float, seed: int, *, reference: float | None = None, created: str = "2026-11-20") -> Sampled:
    """Return 15 rounds with 1 % of noise of their own, and 20 % that both arms share."""
    draw = np.random.default_rng(seed)
    shared = np.exp(draw.normal(0, 0.2, 15)) if reference else np.ones(15)
    own = [np.exp(draw.normal(0, 0.01, 15)) for _ in range(2)]
    return Sampled(
        created=created,
        samples_s=tuple((seconds * shared * own[0]).tolist()),
        reference="standard_lora" if reference else "",
        reference_s=tuple((reference * shared * own[1]).tolist()) if reference else (),
    )


def judged(now: Sampled, then: Sampled, terms: Terms = TERMS, **record: Any) -> list[Verdict]:
    stored = Record(subject=SUBJECT, last=then, anchor=record.pop("anchor", then), **record)
    return list(judge_baseline(Measured(SUBJECT, now), Baseline({SUBJECT.key: stored}), terms))


def statuses(found: list[Verdict]) -> dict[str, str]:
    return {verdict.code: str(verdict.status) for verdict in found}


def test_noise_alone_trips_nothing() -> None:
    found = [judged(sampled(1.0, seed), sampled(1.0, seed + 500)) for seed in range(200)]
    assert {status for verdicts in found for status in statuses(verdicts).values()} == {"PASS"}


def test_a_slowdown_fails_with_what_to_do() -> None:
    (verdict,) = judged(sampled(1.12, 1), sampled(1.0, 2))
    assert verdict.status is Status.FAIL
    assert verdict.message == (
        "fused takes 1.121× as long as in the last accepted run of 2026-11-20 (1.113–1.130, 15 against 15 samples), "
        "over the allowed 1.05×; look for what changed, or accept it with: pytest --update"
    )
    assert [line.split(":")[0] for line in verdict.detail] == ["2026-11-20", "now"]


def test_ratios_to_the_reference_come_first() -> None:
    # The whole machine is half as fast; the strategy is as fast as ever beside the other.
    verdict, _ = judged(sampled(1.6, 1, reference=2.0), sampled(0.8, 2, reference=1.0))
    assert verdict.status is Status.PASS
    assert "15 against 15 samples, as ratios to standard_lora), within the allowed 1.05×" in verdict.message
    (verdict,) = judged(sampled(0.9, 1, reference=1.0), sampled(0.8, 2, reference=1.0))
    assert verdict.status is Status.FAIL


def test_seconds_where_the_references_are_not_the_same() -> None:
    (verdict,) = judged(sampled(1.6, 1, reference=2.0), sampled(0.8, 2))
    assert verdict.status is Status.FAIL
    assert "as ratios" not in verdict.message


def test_too_few_samples_cannot_tell() -> None:
    few = Sampled(created="2026-11-20", samples_s=(1.0, 1.01, 0.99))
    (verdict,) = judged(few, few)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.message.endswith(
        "cannot tell whether it holds the allowed 1.05×; take more rounds "
        "(--loraperf-rounds, --loraperf-max-seconds) on a quieter machine"
    )


@pytest.mark.parametrize(
    ("tolerance", "status"),
    [
        ({}, "FAIL"),
        ({"max_slowdown": 0.2}, "PASS"),
        ({"allow_s": 0.2}, "PASS"),
        ({"max_slowdown": 0.0}, "FAIL"),
    ],
)
def test_a_record_has_its_own_tolerance(tolerance: dict[str, Any], status: str) -> None:
    assert statuses(judged(sampled(1.12, 1), sampled(1.0, 2), **tolerance)) == {"baseline": status}


class TestErosion:
    def test_what_creeps_is_found(self) -> None:
        found = judged(sampled(1.16, 1), sampled(1.13, 2), anchor=sampled(1.0, 3, created="2026-01-01"))
        assert statuses(found) == {"baseline": "PASS", "baseline-erosion": "FAIL"}
        assert "as long as in the first accepted run of 2026-01-01" in found[1].message
        assert "over the allowed 1.1×" in found[1].message

    def test_within_its_tolerance(self) -> None:
        anchor = sampled(1.0, 3)
        assert statuses(judged(sampled(1.03, 1), sampled(1.02, 2), anchor=anchor))["baseline-erosion"] == "PASS"
        found = judged(sampled(1.16, 1), sampled(1.13, 2), anchor=anchor, max_erosion=0.3)
        assert statuses(found)["baseline-erosion"] == "PASS"

    def test_a_clear_speed_up_moves_the_anchor(self) -> None:
        slow, fast = sampled(1.0, 1), sampled(0.8, 2)
        stored = with_accepted(Baseline(), [Measured(SUBJECT, slow)])
        for now, anchor in ((sampled(0.99, 3), slow), (fast, fast)):
            after = with_accepted(stored, [Measured(SUBJECT, now)])
            assert after.records[SUBJECT.key].anchor == anchor

    def test_what_to_do_is_no_update_which_keeps_the_anchor(self) -> None:
        found = judged(sampled(1.16, 1), sampled(1.13, 2), anchor=sampled(1.0, 3))
        assert found[1].message.endswith("look for what crept in, or raise max_erosion of its record in the file")


class TestReference:
    def test_that_slows_down_too_is_told(self) -> None:
        found = judged(sampled(2.0, 1, reference=2.2), sampled(1.0, 2, reference=1.0))
        assert [verdict.status for verdict in found] == [Status.PASS, Status.SKIPPED]
        assert found[1].message.startswith("standard_lora, which fused is compared with, takes 2.")
        assert found[1].message.endswith(
            "as long as in the run of 2026-11-20: a slower machine, or a change that slows both down, "
            "which ratios do not show"
        )

    def test_that_is_another_one_is_told(self) -> None:
        (verdict,) = judged(sampled(0.8, 1, reference=1.0), sampled(0.8, 2))
        assert ", in seconds, since it ran beside standard_lora and beside nothing then)" in verdict.message


class TestImprovement:
    def test_is_shown_with_what_keeps_it(self) -> None:
        (verdict,) = judged(sampled(0.8, 1), sampled(1.0, 2))
        assert (verdict.status, verdict.tighter) == (Status.PASS, "pytest --update")

    def test_a_small_one_is_not(self) -> None:
        (verdict,) = judged(sampled(0.99, 1), sampled(1.0, 2))
        assert (verdict.status, verdict.tighter) == (Status.PASS, None)


@pytest.mark.parametrize(("strict", "status"), [(True, Status.FAIL), (False, Status.SKIPPED)])
class TestWhatABaselineCannotSay:
    def test_missing(self, strict: bool, status: Status) -> None:
        terms = replace(TERMS, strict=strict)
        (verdict,) = judge_baseline(Measured(SUBJECT, sampled(1.0, 1)), Baseline(), terms)
        assert (verdict.status, verdict.code) == (status, "baseline-missing")
        assert verdict.message == (
            "no baseline of fused on H100 with these versions, this model and request; make it with: pytest --update"
        )

    def test_other_versions(self, strict: bool, status: Status) -> None:
        here = replace(SUBJECT, torch="2.12.0", driver="590")
        then = sampled(1.0, 1)
        near = Record(subject=replace(SUBJECT, driver="590"), last=then, anchor=then)
        far = Record(subject=replace(SUBJECT, backend="diffsynth 2.0"), last=then, anchor=then)
        stored = Baseline({each.subject.key: each for each in (far, near)})
        terms = replace(TERMS, strict=strict)
        (verdict,) = judge_baseline(Measured(here, then), stored, terms)
        assert (verdict.status, verdict.code) == (status, "baseline-stale")
        assert verdict.message == (
            "the baseline of fused is of torch 2.11.0 (here 2.12.0); make it anew with: pytest --update"
        )

    def test_another_model_or_request_is_another_thing(self, strict: bool, status: Status) -> None:
        then = sampled(1.0, 1)
        other = Record(subject=replace(SUBJECT, model="synthetic:tiny"), last=then, anchor=then)
        stored = Baseline({other.subject.key: other})
        (verdict,) = judge_baseline(Measured(SUBJECT, then), stored, replace(TERMS, strict=strict))
        assert (verdict.status, verdict.code) == (status, "baseline-missing")

    def test_old(self, strict: bool, status: Status) -> None:
        then = sampled(1.0, 2, created="2026-08-01")
        found = judged(sampled(1.0, 1), then, replace(TERMS, strict=strict))
        assert [(verdict.code, verdict.status) for verdict in found] == [
            ("baseline-stale", status),
            ("baseline", Status.PASS),
        ]
        assert found[0].message == (
            "the baseline of fused is 115 days old (2026-08-01), over the allowed 90; "
            "make it anew with: pytest --update"
        )

    @pytest.mark.parametrize("created", ["2027-01-01", "yesterday"])
    def test_a_day_that_is_none(self, strict: bool, status: Status, created: str) -> None:
        found = judged(sampled(1.0, 1), sampled(1.0, 2, created=created), replace(TERMS, strict=strict))
        assert found[0].status is status
        assert f"the baseline of fused is of '{created}', no day up to today; make it anew" in found[0].message

    def test_a_clock_that_went_back_a_day_is_let_pass(self, strict: bool, status: Status) -> None:
        found = judged(sampled(1.0, 1), sampled(1.0, 2, created="2026-11-25"), replace(TERMS, strict=strict))
        assert [verdict.code for verdict in found] == ["baseline"]
        assert status  # whether strict or not


class TestAccepting:
    def test_the_first_is_the_anchor_and_stays(self) -> None:
        first, second = sampled(1.0, 1), sampled(0.98, 2)
        stored = accepted(Measured(SUBJECT, first), Baseline())
        assert stored.anchor == stored.last == first
        edited = Baseline({SUBJECT.key: replace(stored, max_slowdown=0.2, allow_s=0.01)})
        again = accepted(Measured(SUBJECT, second), edited)
        assert (again.anchor, again.last, again.max_slowdown, again.allow_s) == (first, second, 0.2, 0.01)

    def test_records_of_other_machines_stay(self) -> None:
        other = Record(subject=replace(SUBJECT, gpu="L40S"), last=sampled(2.0, 1), anchor=sampled(2.0, 1))
        stored = Baseline({other.subject.key: other})
        after = with_accepted(stored, [Measured(SUBJECT, sampled(1.0, 2))])
        assert set(after.records) == {other.subject.key, SUBJECT.key}
        assert after.records[other.subject.key] is other

    def test_of_two_tests_the_samples_that_tell_more(self) -> None:
        alone, beside = sampled(1.0, 1), sampled(1.0, 2, reference=1.2)
        for order in ((alone, beside), (beside, alone)):
            after = with_accepted(Baseline(), [Measured(SUBJECT, each) for each in order])
            assert after.records[SUBJECT.key].last == beside

    def test_the_diff_to_commit(self) -> None:
        before = with_accepted(Baseline(), [Measured(SUBJECT, sampled(1.0, 1))])
        after = with_accepted(before, [Measured(SUBJECT, sampled(0.98, 2, created="2026-11-24"))])
        lines = list(changes(before, after))
        assert [line[:45] for line in lines if line[0] in "+-"] == [
            "--- before",
            "+++ after",
            '- "last": {"created": "2026-11-20", "samples_',
            '+ "last": {"created": "2026-11-24", "samples_',
        ]
        assert max(map(len, lines)) == 110
        assert list(changes(after, after)) == []


def test_seconds_allowed_beyond_all_bounds_are_a_limit_too() -> None:
    assert statuses(judged(sampled(0.3, 1), sampled(0.1, 2), allow_s=1.7e308)) == {"baseline": "PASS"}


def test_a_day_that_was_edited_moves_no_cursor() -> None:
    edited = sampled(1.0, 2, reference=1.0, created="\x1b[2K\n::error::")
    found = judged(sampled(1.0, 1, reference=1.3), edited)
    assert len(found) == 3  # stale, the ratio, and the slower reference
    assert all(verdict.message.isprintable() for verdict in found)


def test_hostile_names_stay_in_their_line() -> None:
    hostile = replace(SUBJECT, name="x\n::error::boom|" + "y" * 10_000, adapters=("caf\udce9:1",))
    found = judge_baseline(Measured(hostile, sampled(1.0, 1)), Baseline(), TERMS)
    assert all("\n" not in verdict.message for verdict in found)
    assert len(hostile.key) < 220
    assert "\n" not in hostile.key
