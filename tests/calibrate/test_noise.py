"""The simulated noise: as noisy as it says, alike in both arms, seeded; and our verdicts keep their promise in it."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_loraperf.calibrate.noise import KINDS, Times
from pytest_loraperf.calibrate.replay import replay, sequential, simulated


def logs(name: str, rounds: int, seed: int = 1) -> tuple[Times, Times]:
    samples, reference = KINDS[name](np.random.default_rng(seed), rounds)
    return np.log(samples), np.log(reference)


@pytest.mark.parametrize(
    ("name", "deviation", "correlation"),
    [("Gaussian", 0.24, 0.7), ("heavy-tailed", 0.24, 0.7), ("bimodal", 0.24, 0.7), ("bursty", 0.26, 0.5)],
)
def test_level_and_what_a_round_shares(name: str, deviation: float, correlation: float) -> None:
    samples, reference = logs(name, 100_000)
    assert samples.std() == pytest.approx(deviation, rel=0.03)
    assert np.corrcoef(samples, reference)[0, 1] == pytest.approx(correlation, abs=0.03)


@pytest.mark.parametrize("name", KINDS)
def test_the_arms_are_alike(name: str) -> None:
    samples, reference = logs(name, 100_000)
    assert len(samples) == len(reference) == 100_000
    assert np.median(samples - reference) == pytest.approx(0, abs=0.005)
    assert np.quantile(samples - reference, 0.9) == pytest.approx(-np.quantile(samples - reference, 0.1), rel=0.03)


@pytest.mark.parametrize("name", KINDS)
def test_an_odd_number_of_rounds_and_one_round(name: str) -> None:
    assert [len(arm) for arm in logs(name, 7)] == [7, 7]
    assert [len(arm) for arm in logs(name, 1)] == [1, 1]


@pytest.mark.parametrize("name", KINDS)
def test_equal_seeds_draw_equal_noise(name: str) -> None:
    assert np.array_equal(logs(name, 30), logs(name, 30))
    assert not np.array_equal(logs(name, 30), logs(name, 30, seed=2))


def test_tails_are_heavy_and_modes_are_two() -> None:
    samples, reference = logs("heavy-tailed", 100_000)
    ratio = samples - reference
    assert np.mean(np.abs(ratio) > 4 * ratio.std()) > 0.002  # Gaussian: 0.00006
    samples, reference = logs("bimodal", 100_000)
    ratio = samples - reference
    counts = {place: np.mean(np.abs(ratio - place) < 0.02) for place in (0.0, 0.125, 0.25)}
    assert counts[0.0] > counts[0.25] > 0
    assert counts[0.125] < counts[0.0] / 1.5


@pytest.mark.parametrize("name", ["drifting", "bursty"])
def test_what_time_brings_lasts_from_round_to_round(name: str) -> None:
    _, reference = logs(name, 200)
    assert np.corrcoef(reference[:-1], reference[1:])[0, 1] > 0.3


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("rounds", [10, 30, 60])
@pytest.mark.parametrize("limit", [0.02, 0.05])
def test_false_alarms_are_as_rare_as_promised(name: str, rounds: int, limit: float) -> None:
    # At the limit itself, where they are most; 1 % of 300 is 3, and more than 9 come by chance in 1 of 2000 such tests.
    source = simulated(name, KINDS[name])
    tally = replay(source, limit, limit, rule=sequential(rounds), rounds=rounds, replays=300)
    assert tally.failed <= 9
