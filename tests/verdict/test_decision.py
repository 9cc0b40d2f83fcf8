from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.verdict import Status
from pytest_loraperf.verdict.decision import decide, median_interval

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def noisy(seed: int, factor: float, rounds: int = 12) -> tuple[list[float], list[float]]:
    """Rounds as measured on a GPU: what a round shares is large, what an arm adds is small."""
    draw = random.Random(seed)
    shared = [draw.lognormvariate(0, 0.2) for _ in range(rounds)]
    samples = [each * factor * draw.lognormvariate(0, 0.01) for each in shared]
    return samples, [each * draw.lognormvariate(0, 0.01) for each in shared]


def test_equal_is_at_most() -> None:
    found = decide([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], max_ratio=1.0)
    assert (found.status, found.ratio, found.interval, found.rounds) == (Status.PASS, 1.0, (1.0, 1.0), 3)


def test_fails_when_the_interval_is_beyond_the_limit() -> None:
    found = decide([1.2, 1.21, 1.22], [1.0, 1.0, 1.0], max_ratio=1.05)
    assert found.status is Status.FAIL
    assert found.ratio == pytest.approx(1.21)
    assert found.interval == pytest.approx((1.2, 1.22))


def test_cannot_tell_when_the_interval_holds_the_limit() -> None:
    assert decide([0.9, 1.0, 1.2], [1.0, 1.0, 1.0], max_ratio=1.05).status is Status.INCONCLUSIVE


def test_noise_alone_does_not_fail() -> None:
    statuses = [decide(*noisy(seed, 1.0), max_ratio=1.05).status for seed in range(300)]
    assert statuses.count(Status.FAIL) == 0
    assert statuses.count(Status.PASS) > 290


def test_a_tenth_slower_is_found_in_noise_of_a_fifth() -> None:
    statuses = [decide(*noisy(seed, 1.1), max_ratio=1.05).status for seed in range(300)]
    assert statuses.count(Status.FAIL) > 290


def test_max_rounds_uses_the_first() -> None:
    found = decide([1.0, 1.0, 9.0], [1.0, 1.0, 1.0], max_ratio=1.0, max_rounds=2)
    assert (found.rounds, found.status) == (2, Status.PASS)


@pytest.mark.parametrize(
    ("samples", "reference", "limit", "message"),
    [
        ([1.0], [1.0, 2.0], 1.0, "1 samples but 2 of the reference"),
        ([], [], 1.0, "at least one"),
        ([float("nan")], [1.0], 1.0, "positive, finite seconds"),
        ([1.0], [0.0], 1.0, "positive, finite seconds"),
        ([1.0], [1.0], 0.0, "max_ratio 0.0 is not a positive number"),
        ([1.0], [1.0], float("inf"), "max_ratio inf is not a positive number"),
    ],
)
def test_what_cannot_be_decided(samples: list[float], reference: list[float], limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(samples, reference, max_ratio=limit)


@given(TIMES, st.floats(0.1, 10))
def test_scaling_both_arms_changes_nothing(times: list[float], factor: float) -> None:
    base = [1.0] * len(times)
    plain = decide(times, base, max_ratio=1.0)
    scaled = decide([t * factor for t in times], [factor] * len(times), max_ratio=1.0)
    assert scaled.ratio == pytest.approx(plain.ratio)


@given(TIMES)
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(values)
    ordered = sorted(values)
    assert low <= ordered[(len(values) - 1) // 2] <= high


@pytest.mark.parametrize(("n", "ends"), [(2, (1, 2)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15))])
def test_the_interval_is_that_of_the_sign_test(n: int, ends: tuple[int, int]) -> None:
    # The 95 % order-statistics intervals of the median as tabulated (Conover, table A3).
    assert median_interval(list(range(1, n + 1))) == ends
