from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.verdict import Status, decide
from pytest_loraperf.verdict.decision import (
    ALPHA,
    CLEAR,
    FIRST_LOOK,
    dependence,
    estimate,
    hodges_lehmann,
    log_ratios,
    looks,
    median_interval,
    settled,
    signed_rank_cut,
    walsh_averages,
    walsh_interval,
)

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)
Draw = Callable[[random.Random], float]

NOISE: dict[str, Draw] = {
    "gaussian": lambda draw: math.exp(draw.gauss(0, 0.1)),
    "heavy-tailed": lambda draw: math.exp(0.1 * draw.gauss(0, 1) / math.sqrt(draw.expovariate(1.0))),
    "bimodal": lambda draw: (1.4 if draw.random() < 0.3 else 1.0) * math.exp(draw.gauss(0, 0.01)),
    "skewed": lambda draw: 1 + draw.expovariate(5.0),
}


def rounds_of(noise: Draw, seed: int, factor: float, count: int) -> tuple[list[float], list[float]]:
    """Rounds as measured on a GPU: what a round shares is large, what each arm adds is the noise."""
    draw = random.Random(seed)
    shared = [draw.lognormvariate(0, 0.3) for _ in range(count)]
    return [each * factor * noise(draw) for each in shared], [each * noise(draw) for each in shared]


def statuses(noise: Draw, factor: float, limit: float, count: int, repeats: int = 300) -> list[Status]:
    pairs = (rounds_of(noise, seed, factor, count) for seed in range(repeats))
    return [decide(samples, reference, max_ratio=limit).status for samples, reference in pairs]


class TestErrors:
    @pytest.mark.parametrize("kind", NOISE)
    @pytest.mark.parametrize("count", [9, 30, 100])
    def test_noise_alone_does_not_fail(self, kind: str, count: int) -> None:
        assert statuses(NOISE[kind], 1.0, 1.02, count).count(Status.FAIL) <= 3

    @pytest.mark.parametrize("kind", NOISE)
    def test_nor_does_it_pass_what_is_over_the_limit(self, kind: str) -> None:
        assert statuses(NOISE[kind], 1.08, 1.05, 100).count(Status.PASS) <= 3

    def test_at_the_limit_itself_stopping_early_does_not_make_the_error_larger(self) -> None:
        found = statuses(NOISE["gaussian"], 1.05, 1.05, 80, repeats=1000)
        # 10 are expected at the most; 20 would be met once in 350 times.
        assert found.count(Status.FAIL) < 20
        assert found.count(Status.PASS) < 20

    @pytest.mark.parametrize("kind", NOISE)
    def test_what_is_slower_is_found(self, kind: str) -> None:
        assert statuses(NOISE[kind], 1.3, 1.05, 150, repeats=100).count(Status.FAIL) >= 95

    def test_dependent_rounds_are_not_taken_for_independent_ones(self) -> None:
        draw = np.random.default_rng(0)
        failed = 0
        for _ in range(300):
            slow = np.zeros(100)
            for i in range(1, 100):
                slow[i] = 0.7 * slow[i - 1] + draw.normal(0, 0.03)
            failed += decide(list(np.exp(slow)), [1.0] * 100, max_ratio=1.02).status is Status.FAIL
        assert failed <= 6

    def test_the_shares_of_all_looks_are_at_most_the_error(self) -> None:
        from pytest_loraperf.verdict import decision

        middle = [rounds for rounds in looks() if rounds > FIRST_LOOK]
        shares = decision._FIRST + decision._LAST + len(middle) * decision._EACH
        assert shares == pytest.approx(ALPHA)


def two_modes(draw: random.Random) -> float:
    return 1.5 if draw.random() < 0.4 else 1.0


class TestAgainstALimit:
    """A limit in seconds is no arm: its noise is one-sided, and what is judged is the median."""

    @pytest.mark.parametrize("noise", [*NOISE.values(), two_modes], ids=[*NOISE, "two modes"])
    def test_noise_at_the_limit_does_not_fail(self, noise: Draw) -> None:
        draw = random.Random(5)
        limit = float(np.median([noise(draw) for _ in range(20_000)]))
        failed = sum(
            decide([noise(draw) for _ in range(100)], [limit] * 100, max_ratio=1.0).status is Status.FAIL
            for _ in range(300)
        )
        assert failed <= 8

    def test_the_estimate_is_the_median(self) -> None:
        found = decide([1.0] * 12 + [1.5] * 8, [2.0] * 20, max_ratio=0.5, max_rounds=20)
        assert found.ratio == pytest.approx(0.5)
        assert found.status is not Status.FAIL

    def test_what_is_over_it_fails_and_what_is_within_passes(self) -> None:
        draw = random.Random(1)
        samples = [1 + draw.expovariate(5.0) for _ in range(60)]
        assert decide(samples, [1.0] * 60, max_ratio=1.02).status is Status.FAIL
        assert decide(samples, [1.5] * 60, max_ratio=1.0).status is Status.PASS


class TestStopping:
    def test_identical_arms_pass_at_the_first_look(self) -> None:
        found = decide([1.0] * 50, [1.0] * 50, max_ratio=1.05)
        assert (found.status, found.rounds, found.ratio, found.interval) == (Status.PASS, FIRST_LOOK, 1, (1, 1))

    def test_what_comes_after_the_verdict_is_not_used(self) -> None:
        found = decide([1.0] * 9 + [100.0] * 41, [1.0] * 50, max_ratio=1.05)
        assert (found.status, found.rounds) == (Status.PASS, 9)

    def test_close_ones_take_more_rounds(self) -> None:
        noise = NOISE["gaussian"]
        near = [decide(*rounds_of(noise, seed, 1.0, 500), max_ratio=1.02).rounds for seed in range(20)]
        far = [decide(*rounds_of(noise, seed, 1.0, 500), max_ratio=1.5).rounds for seed in range(20)]
        assert max(far) < min(near)
        assert set(near + far) <= {*looks(), 500}

    def test_three_clear_rounds_are_enough(self) -> None:
        slow = decide([10.0, 11.0, 12.0], [1.0, 1.0, 1.0], max_ratio=3.0)
        assert slow.status is Status.FAIL
        assert slow.interval == pytest.approx((10 / CLEAR, 12 * CLEAR))
        assert decide([0.3, 0.31, 0.3], [1.0, 1.0, 1.0], max_ratio=1.0).status is Status.PASS

    @pytest.mark.parametrize("count", range(1, 9))
    def test_few_rounds_that_are_not_clear_cannot_tell(self, count: int) -> None:
        found = decide([2.0] * count, [1.0] * count, max_ratio=1.05)
        assert found.status is Status.INCONCLUSIVE
        assert found.ratio == pytest.approx(2.0)
        assert (found.interval == (0, math.inf)) == (count < 3)

    def test_max_rounds_uses_the_first(self) -> None:
        found = decide([2.0] * 20, [1.0] * 20, max_ratio=1.05, max_rounds=8)
        assert (found.rounds, found.status) == (8, Status.INCONCLUSIVE)

    def test_equal_is_at_most_within_rounding(self) -> None:
        assert decide([0.1 * 3] * 9, [0.3] * 9, max_ratio=1.0).status is Status.PASS

    @given(st.integers(0, 1000), st.sampled_from([1.0, 1.05, 1.2]))
    def test_a_verdict_is_settled_where_sampling_may_stop(self, seed: int, limit: float) -> None:
        samples, reference = rounds_of(NOISE["gaussian"], seed, 1.1, 40)
        found = decide(samples, reference, max_ratio=limit)
        if found.status is not Status.INCONCLUSIVE and found.rounds < 40:
            assert settled(samples[: found.rounds], reference[: found.rounds], limit)
            assert not settled(samples[: found.rounds - 1], reference[: found.rounds - 1], limit)


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


@pytest.mark.parametrize("rounds", [0, -1])
def test_rounds_that_are_none_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match=f"^max_rounds {rounds} is not a positive number$"):
        decide([1.0], [1.0], max_ratio=1.0, max_rounds=rounds)


@given(TIMES, st.floats(0.1, 10))
def test_scaling_both_arms_changes_nothing(times: list[float], factor: float) -> None:
    base = [1.0] * len(times)
    plain = decide(times, base, max_ratio=1.0)
    scaled = decide([t * factor for t in times], [factor] * len(times), max_ratio=1.0)
    assert scaled.ratio == pytest.approx(plain.ratio)


@given(TIMES)
def test_the_status_is_where_the_interval_lies(times: list[float]) -> None:
    found = decide(times, [1.0] * len(times), max_ratio=1.1)
    low, high = found.interval
    inside, beyond = high <= 1.1 * (1 + 1e-9), low > 1.1
    assert (found.status is Status.PASS, found.status is Status.FAIL) == (inside, beyond)


@given(TIMES)
def test_the_estimate_lies_in_its_interval(times: list[float]) -> None:
    ratio, (low, high) = estimate(times, [1.0] * len(times))
    assert low <= ratio * (1 + 1e-6)
    assert ratio <= high * (1 + 1e-6)


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
    from pytest_loraperf.verdict import decision

    exact = [signed_rank_cut(40, error) for error in (0.0004, 0.002, 0.004)]
    try:
        decision._EXACT_ROUNDS = 39
        signed_rank_cut.cache_clear()
        near = [signed_rank_cut(40, error) for error in (0.0004, 0.002, 0.004)]
    finally:
        decision._EXACT_ROUNDS = 128
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


def test_log_ratios_are_round_by_round() -> None:
    assert log_ratios([2.0, 1.0], [1.0, 2.0]) == pytest.approx([math.log(2), -math.log(2)])


@given(TIMES)
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(values)
    ordered = sorted(values)
    assert low <= ordered[(len(values) - 1) // 2] <= high


@pytest.mark.parametrize(("n", "ends"), [(2, (1, 2)), (5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15))])
def test_the_interval_is_that_of_the_sign_test(n: int, ends: tuple[int, int]) -> None:
    # The 95 % order-statistics intervals of the median as tabulated (Conover, table A3).
    assert median_interval(list(range(1, n + 1))) == ends
