"""Replays: which windows are judged, what is counted, and that a bad rule is seen to be bad."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pytest_loraperf.calibrate.noise import KINDS, Pair, Times
from pytest_loraperf.calibrate.recording import Recording
from pytest_loraperf.calibrate.replay import (
    LIMITS,
    SLOWDOWNS,
    Source,
    recorded,
    replay,
    replay_all,
    sequential,
    simulated,
)
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.verdict.types import Status

GAUSSIAN = simulated("Gaussian", KINDS["Gaussian"])


def constant(rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = False) -> Pair:  # noqa: ARG001 - as a source is called
    return np.full(rounds, 2.0 * (1 + slowdown)), np.full(rounds, 2.0)


STILL = Source("still", constant)


def recording(rounds: int = 10) -> Recording:
    """The reference counts rounds, so that a window is known by its times."""
    numbers = tuple(float(number + 1) for number in range(rounds))
    arms = {
        "+0%": numbers,
        "+0% again": tuple(3 * each for each in numbers),
        "+5%": tuple(7 * each for each in numbers),
    }
    return Recording("a call", "a card", "2.9.0", "tiny", {}, "fused", arms, (tuple(arms),) * rounds)


def test_a_rule_that_always_fails_is_seen() -> None:
    def fails(samples: Times, _: Times, __: float) -> tuple[Status, int]:
        return Status.FAIL, len(samples)

    tally = replay(GAUSSIAN, 0.0, 0.05, rule=fails, rounds=5, replays=20)
    assert (tally.false_alarms, tally.power, tally.failed, tally.passed) == (1.0, None, 20, 0)


def test_a_rule_that_never_fails_is_seen() -> None:
    def passes(samples: Times, _: Times, __: float) -> tuple[Status, int]:
        return Status.PASS, len(samples)

    tally = replay(GAUSSIAN, 0.2, 0.05, rule=passes, rounds=5, replays=20)
    assert (tally.false_alarms, tally.power, tally.failed, tally.passed) == (None, 0.0, 0, 20)


def test_the_ratio_of_medians_has_false_alarms_where_ours_has_none() -> None:
    def medians(samples: Times, reference: Times, limit: float) -> tuple[Status, int]:
        slower = np.median(samples) > np.median(reference) * (1 + limit)
        return (Status.FAIL if slower else Status.PASS), len(samples)

    theirs = replay(GAUSSIAN, 0.0, 0.05, rule=medians, rounds=20, replays=200)
    ours = replay(GAUSSIAN, 0.0, 0.05, rule=sequential(20), rounds=20, replays=200)
    assert theirs.false_alarms is not None
    assert theirs.false_alarms > 0.10
    assert ours.failed <= 2


def test_medians_are_those_of_a_verdict() -> None:
    used = iter([3, 5, 9, 9])
    said = iter([Status.PASS, Status.FAIL, Status.PASS, Status.INCONCLUSIVE])
    tally = replay(STILL, 0.5, 0.02, rule=lambda *_: (next(said), next(used)), rounds=9, replays=4)
    assert (tally.passed, tally.failed, tally.inconclusive, tally.power) == (2, 1, 1, 0.25)
    assert (tally.rounds, tally.seconds) == (5, 5 * (3.0 + 2.0))


def test_without_a_verdict_there_is_no_median() -> None:
    tally = replay(STILL, 0.0, 0.02, rule=lambda *_: (Status.INCONCLUSIVE, 9), rounds=9, replays=4)
    assert (tally.rounds, tally.seconds, tally.false_alarms, tally.inconclusive) == (None, None, 0.0, 4)


def test_a_slowdown_at_the_limit_is_no_alarm() -> None:
    tally = replay(STILL, 0.05, 0.05, rule=sequential(30), rounds=30, replays=2)
    assert (tally.false_alarms, tally.power, tally.failed) == (0.0, None, 0)


def test_what_is_clear_is_found_in_all() -> None:
    tally = replay(STILL, 0.2, 0.05, rule=sequential(30), rounds=30, replays=2)
    assert (tally.power, tally.rounds) == (1.0, 9)


def test_simulated_noise_is_slower_by_the_factor() -> None:
    slow, same = (GAUSSIAN.draw(np.random.default_rng(3), 8, share) for share in (0.2, 0.0))
    assert slow[0] == pytest.approx(same[0] * 1.2)
    assert np.array_equal(slow[1], same[1])


def test_windows_are_successive_rounds_and_go_on_at_the_beginning() -> None:
    rng = np.random.default_rng(0)
    source = recorded("card", recording())
    starts = set()
    for _ in range(100):
        samples, reference = source.draw(rng, 4, 0.0)
        first, again = sorted([reference, samples], key=lambda times: float(times[0]))
        assert again == pytest.approx(3 * first)
        assert all((after - before) % 10 == 1 for before, after in pairwise(first))
        starts.add(first[0])
    assert starts == {float(number) for number in range(1, 11)}


def test_a_recorded_arm_is_used() -> None:
    samples, reference = recorded("card", recording()).draw(np.random.default_rng(0), 4, 0.05)
    assert samples == pytest.approx(7 * reference)


@pytest.mark.parametrize(("slowdown", "exact"), [(0.0, False), (0.05, True), (0.10, False)])
def test_an_exact_slowdown_is_made_of_the_equal_arms_in_either_place(slowdown: float, exact: bool) -> None:
    rng = np.random.default_rng(0)
    source = recorded("card", recording())
    pairs = [source.draw(rng, 4, slowdown, exact=exact) for _ in range(20)]
    factors = {round(float((samples / reference)[0]) / (1 + slowdown), 6) for samples, reference in pairs}
    assert factors == {3.0, round(1 / 3, 6)}


def test_a_false_alarm_is_one_of_an_exact_slowdown() -> None:
    asked = []

    def draw(rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = False) -> Pair:
        asked.append((slowdown, exact))
        return constant(rng, rounds, slowdown)

    for slowdown in (0.0, 0.05, 0.06):
        replay(Source("still", draw), slowdown, 0.05, rule=sequential(9), rounds=9, replays=1)
    assert asked == [(0.0, True), (0.05, True), (0.06, False)]


def test_a_window_is_no_longer_than_its_recording() -> None:
    source = recorded("card", recording())
    with pytest.raises(LoraperfError) as caught:
        source.draw(np.random.default_rng(0), 11, 0.0)
    assert str(caught.value) == (
        "11 rounds are asked for, the recording has 10; record as many, or ask for at most 10"
    )


def test_equal_seeds_count_the_same() -> None:
    tallies = [
        replay(GAUSSIAN, 0.1, 0.02, rule=sequential(30), rounds=30, replays=20, seed=seed) for seed in (4, 4, 5)
    ]
    assert tallies[0] == tallies[1] != tallies[2]


def test_every_source_limit_and_slowdown() -> None:
    told: list[str] = []
    tallies = list(replay_all([STILL, GAUSSIAN], rule=sequential(9), rounds=9, replays=1, tell=told.append))
    asked = [(tally.source, tally.limit, tally.slowdown) for tally in tallies]
    assert asked == [
        (name, limit, slow) for name in ("still", "Gaussian") for limit in LIMITS for slow in SLOWDOWNS
    ]
    assert told[1] == "still noise: +2% against a limit of +2%"
