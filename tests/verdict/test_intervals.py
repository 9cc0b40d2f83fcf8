from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.verdict.intervals import (
    dependence,
    hodges_lehmann,
    median_interval,
    sign_cut,
    sign_interval,
    signed_rank_cut,
    walsh_averages,
    walsh_interval,
)

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def plain_walsh(values: Sequence[float]) -> list[float]:
    return sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))


@pytest.mark.parametrize(
    ("count", "draw"),
    [
        *((count, lambda random: random.gauss(0, 1)) for count in (1, 2, 9, 200)),
        pytest.param(200, lambda random: math.tan(math.pi * (random.random() - 0.5)), id="heavy tails"),
        pytest.param(200, lambda random: random.gauss(0, 1) + 5 * random.randrange(2), id="two heaps"),
        pytest.param(200, lambda random: round(random.gauss(0, 1), 1), id="ties"),
        pytest.param(200, lambda random: float(random.random() < 0.01), id="few others"),
        pytest.param(200, lambda _: 0.25, id="all equal"),
    ],
)
def test_walsh_averages_are_those_of_all_pairs(count: int, draw: Callable[[random.Random], float]) -> None:
    numbers = random.Random(count)
    values = [draw(numbers) for _ in range(count)]
    ordered = plain_walsh(values)
    places = [0, len(ordered) // 3, len(ordered) - 1]
    assert walsh_averages(np.array(values), *places) == pytest.approx([ordered[i] for i in places], abs=1e-6)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert hodges_lehmann(np.array(values)) == pytest.approx(middle, abs=1e-6)


def test_the_cut_is_that_of_the_exact_distribution() -> None:
    # Of all 2**6 choices of signs of the ranks 1 to 6.
    sums = [
        sum(rank * sign for rank, sign in enumerate(signs, 1)) for signs in itertools.product((0, 1), repeat=6)
    ]
    for error in (0.001, 0.016, 0.05, 0.2):
        expected = max((w for w in range(22) if sum(s <= w for s in sums) / 64 <= error), default=-1)
        assert signed_rank_cut(6, error) == expected


def test_the_approximation_is_on_the_wide_side_of_the_exact_cut() -> None:
    from pytest_loraperf.verdict import intervals

    exact = [signed_rank_cut(40, error) for error in (0.0004, 0.002, 0.004)]
    try:
        intervals._EXACT_ROUNDS = 39
        signed_rank_cut.cache_clear()
        near = [signed_rank_cut(40, error) for error in (0.0004, 0.002, 0.004)]
    finally:
        intervals._EXACT_ROUNDS = 128
        signed_rank_cut.cache_clear()
    assert all(exact_cut - 10 <= cut <= exact_cut for cut, exact_cut in zip(near, exact, strict=True))


def test_too_few_rounds_for_an_error_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^5 rounds are too few for an error of 0\.001$"):
        walsh_interval(np.zeros(5), 0.001)


def test_dependence_is_that_of_successive_rounds() -> None:
    draw = np.random.default_rng(1)
    assert dependence(draw.normal(size=2000)) < 1.05
    assert dependence(np.cumsum(draw.normal(size=200))) > 3
    assert dependence(np.array([1.0, -1.0] * 20)) == 1
    assert dependence(np.zeros(12)) == 1


def test_times_of_one_arm_are_taken_for_more_dependent_than_they_look() -> None:
    logs = np.random.default_rng(1).normal(size=100)
    ranks = logs.argsort().argsort()
    seen = np.corrcoef(ranks[:-1], ranks[1:])[0, 1]
    assert abs(seen) < 0.1  # one standard error
    assert dependence(logs) == 1
    assert dependence(logs, alone=True) == pytest.approx(math.sqrt((1.1 + seen) / (0.9 - seen)))


def test_dependent_rounds_say_no_less_than_one() -> None:
    assert dependence(np.arange(9.0), alone=True) == pytest.approx(3)


@given(TIMES)
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(values)
    ordered = sorted(values)
    assert low <= ordered[(len(values) - 1) // 2] <= high


@pytest.mark.parametrize(("n", "ends"), [(2, (1, 2)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15))])
def test_the_interval_is_that_of_the_sign_test(n: int, ends: tuple[int, int]) -> None:
    # The 95 % order-statistics intervals of the median as tabulated (Conover, table A3).
    assert median_interval(list(range(1, n + 1))) == ends


@pytest.mark.parametrize("rounds", [1, 8, 9, 20, 21, 150])
@pytest.mark.parametrize("error", [0.0004, 0.002, 0.004, 0.025])
def test_the_cut_of_the_sign_test_is_that_of_counting(rounds: int, error: float) -> None:
    tails = itertools.accumulate(Fraction(math.comb(rounds, below), 2**rounds) for below in range(rounds))
    assert sign_cut(rounds, error) == sum(tail <= Fraction(error) for tail in tails) - 1


def test_so_many_rounds_that_the_chance_of_one_order_is_no_float() -> None:
    # Half the rounds less z standard deviations and a half, by the normal approximation; z of 0.4 % is 2.652.
    assert sign_cut(10_000, 0.004) == math.floor(5000 - 2.652 * 50 - 0.5)
    values = np.arange(10_000.0)
    assert sign_interval(values, 0.004) == pytest.approx((4866, 5133))
    assert median_interval(list(values)) == pytest.approx((4901, 5098))
