from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

import pytest

from pytest_loraperf.gpu.nvml import Reading
from pytest_loraperf.measure.pairs import Measurer
from pytest_loraperf.measure.rounds import Observe, Rounds, Workload, take_rounds
from pytest_loraperf.measure.timing import Plan, Stopwatch, Tick


class FakeTime:
    """A clock that moves only when told."""

    now = 0.0

    @property
    def watch(self) -> Stopwatch:
        return Stopwatch(lambda: self.now)


class Fake:
    """A workload of so many seconds a call, the last for ever; ``fits`` only alone where it does not fit."""

    def __init__(self, time: FakeTime, name: str, *costs: float, fits: bool = True) -> None:
        self.name = self.key = name
        self.fits = fits
        self.calls = self.prepared = self.refreshed = 0
        self.before_call: Callable[[], None] = lambda: None
        self._time = time
        self._costs = self._from(costs)

    @staticmethod
    def _from(costs: Sequence[float]) -> Iterator[float]:
        yield from costs[:-1]
        yield from repeat(costs[-1])

    def prepare(self) -> float | None:
        self.prepared += 1
        return None

    def call(self, tick: Tick) -> object:
        tick()
        self.before_call()
        self.calls += 1
        self._time.now += next(self._costs)
        return None

    def refresh(self) -> object:
        self.refreshed += 1
        return None

    def fits_with(self, others: Sequence[Workload]) -> bool:
        return self.fits or len(others) == 1


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def take(
    time: FakeTime, *arms: Fake, rounds: int = 20, seconds: float = 1e9, observe: Observe | None = None
) -> Rounds:
    found = Rounds(arms, interleaved=all(arm.fits_with(arms) for arm in arms))
    watching = {} if observe is None else {"observe": observe}
    take_rounds(found, Plan(rounds, seconds), time.watch, lambda _: False, lambda *_: None, **watching)
    return found


def test_rounds_hold_every_arm_once_in_seeded_random_order(time: FakeTime) -> None:
    orders = [take(time, *(Fake(time, name, 1.0) for name in "abc")).order for _ in range(2)]
    assert all(sorted(each) == ["a", "b", "c"] for each in orders[0])
    assert len(set(orders[0])) > 3
    assert orders[0] == orders[1]


def test_samples_are_in_the_order_of_rounds(time: FakeTime) -> None:
    taken = take(time, Fake(time, "a", 1.0, 1.0, 1.0, 2.0, 3.0), rounds=3)
    assert taken.seconds("a") == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, 7), (10.0, 6), (100.0, 3)])
def test_time_ends_the_rounds_but_three_are_taken(time: FakeTime, seconds: float, rounds: int) -> None:
    assert len(take(time, Fake(time, "a", seconds), rounds=7, seconds=60.0).taken) == rounds


def test_garbage_is_held_inside_and_let_go_after(time: FakeTime) -> None:
    inside = []
    arm = Fake(time, "a", 1.0)
    arm.before_call = lambda: inside.append(gc.isenabled())
    take(time, arm, rounds=2)
    assert inside[-2:] == [False, False]
    assert gc.isenabled()


def test_an_arm_that_raises_in_round_seven_leaves_and_the_others_finish(time: FakeTime) -> None:
    good, bad = Fake(time, "good", 1.0), Fake(time, "bad", 1.0)

    def fail() -> None:
        if bad.calls == 8:  # two calls warmed it up
            raise RuntimeError("round 7")

    bad.before_call = fail
    taken = take(time, good, bad, rounds=10)
    assert (len(taken.seconds("good")), len(taken.seconds("bad"))) == (10, 6)
    with pytest.raises(RuntimeError, match=r"^round 7$"):
        taken.raise_error("bad")
    taken.raise_error("good")
    assert gc.isenabled()


def test_an_arm_that_cannot_be_warmed_up_costs_the_others_nothing(time: FakeTime) -> None:
    good, bad = Fake(time, "good", 1.0), Fake(time, "bad", 1.0)

    def fail() -> None:
        raise RuntimeError("at once")

    bad.before_call = fail
    taken = take(time, bad, good, rounds=4)
    assert (len(taken.seconds("good")), list(taken.errors)) == (4, ["bad"])


class TestInTurns:
    def test_every_block_is_made_ready_afresh(self, time: FakeTime) -> None:
        new, old = Fake(time, "new", 1.0, fits=False), Fake(time, "old", 2.0)
        taken = take(time, new, old, rounds=4)
        assert taken.order == [("new", "old")] * 4
        assert (new.prepared, old.prepared) == (4, 4)

    def test_what_a_turn_costs_counts_towards_the_time(self, time: FakeTime) -> None:
        new, old = Fake(time, "new", 1.0, fits=False), Fake(time, "old", 1.0)

        def build() -> float | None:
            time.now += 30.0
            return None

        new.prepare = build  # type: ignore[method-assign]  # a slow build
        taken = take(time, new, old, rounds=100, seconds=60.0)
        assert len(taken.taken) == 3
        assert taken.spent["new"] == 3 * (30.0 + 2.0 + 1.0)

    def test_a_second_gate_makes_them_ready_again(self, time: FakeTime) -> None:
        measurer = Measurer(Plan(150, 1e9), time.watch, lambda _: None)
        new, old = Fake(time, "new", 9.0, fits=False), Fake(time, "old", 1.0, 1.1, 1.0)
        measurer.against(new, old, 1.0)
        before = new.prepared, old.prepared
        measurer.against(new, old, 8.0)
        assert (new.prepared - before[0], old.prepared - before[1]) == (6, 6)

    def test_a_round_is_the_median_of_a_block(self, time: FakeTime) -> None:
        new = Fake(time, "new", 0.1, 0.1, 0.2, 0.3, 0.5, 0.5, 0.4, 0.8, fits=False)
        taken = take(time, new, Fake(time, "old", 2.0), rounds=2)
        assert taken.seconds("new") == pytest.approx((0.25, 0.6))

    def test_what_was_warm_a_round_ago_is_refreshed_before_its_block(self, time: FakeTime) -> None:
        new = Fake(time, "new", 2.0, fits=False)
        new.prepare = lambda: 9.0  # type: ignore[method-assign]  # its very first call took longer
        take(time, new, Fake(time, "old", 2.0), rounds=3)
        assert (new.calls, new.refreshed) == (3, 2)

    def test_what_has_to_compile_again_is_warmed_up_again(self, time: FakeTime) -> None:
        new = Fake(time, "new", 2.0, fits=False)
        take(time, new, Fake(time, "old", 2.0), rounds=3)
        assert new.calls == 3 * (2 + 1)

    def test_a_call_of_a_second_is_a_block(self, time: FakeTime) -> None:
        new = Fake(time, "new", 50.0, fits=False)
        take(time, new, Fake(time, "old", 2.0), rounds=3)
        assert new.calls == 3 * (1 + 1)  # so slow a call is warmed up once


class TestThrottling:
    @staticmethod
    def taken(time: FakeTime, slow: set[int], rounds: int = 8) -> Rounds:
        number = iter(range(1000))

        def observe() -> Reading:
            return Reading(throttle=frozenset({"power brake"} if next(number) in slow else ()))

        return take(time, Fake(time, "a", *[1.0] * 2, *map(float, range(1, 100))), rounds=rounds, observe=observe)

    def test_throttled_rounds_do_not_count(self, time: FakeTime) -> None:
        taken = self.taken(time, {0, 3})
        assert taken.seconds("a") == (2.0, 3.0, 5.0, 6.0, 7.0, 8.0)
        assert len(taken.taken) == 8

    def test_three_must_count_though_one_was_throttled(self, time: FakeTime) -> None:
        states = iter([True, False, False, False])

        def observe() -> Reading:
            return Reading(throttle=frozenset({"power brake"} if next(states) else ()))

        taken = take(time, Fake(time, "a", 50.0), rounds=20, seconds=60.0, observe=observe)
        assert (len(taken.taken), len(taken.seconds("a")), taken.dropped()) == (4, 3, (0,))

    def test_but_never_is_nothing_left(self, time: FakeTime) -> None:
        assert len(self.taken(time, set(range(8))).seconds("a")) == 8


class TestMeasurer:
    @pytest.fixture
    def measurer(self, time: FakeTime) -> Measurer:
        return Measurer(Plan(150, 1e9), time.watch, lambda _: None)

    def test_a_pair_is_measured_until_it_is_settled(self, time: FakeTime, measurer: Measurer) -> None:
        new, old = Fake(time, "new", 1.0), Fake(time, "old", 2.0)
        paired = measurer.against(new, old, 1.0)
        assert (paired.samples, paired.reference, paired.interleaved) == ((1.0,) * 9, (2.0,) * 9, True)

    def test_a_clear_one_takes_three_rounds(self, time: FakeTime, measurer: Measurer) -> None:
        assert len(measurer.against(Fake(time, "new", 9.0), Fake(time, "old", 1.0), 1.0).samples) == 3
        assert len(measurer.alone(Fake(time, "other", 1.0), limit=60.0)) == 3

    def test_without_a_limit_a_pair_takes_the_rounds_of_the_plan(self, time: FakeTime, measurer: Measurer) -> None:
        assert len(measurer.alone(Fake(time, "a", 1.0))) == 9
        assert len(measurer.against(Fake(time, "new", 9.0), Fake(time, "old", 1.0)).samples) == 150

    def test_another_gate_adds_to_what_was_measured(self, time: FakeTime, measurer: Measurer) -> None:
        new, old = Fake(time, "new", 9.0), Fake(time, "old", 1.0)
        measurer.against(new, old, 1.0)
        assert len(measurer.against(new, old, 8.0).samples) == 9
        calls = new.calls
        measurer.against(new, old, 2.0)
        assert measurer.alone(new, limit=5.0) == (9.0,) * 9
        assert new.calls == calls

    def test_an_arm_against_itself(self, time: FakeTime, measurer: Measurer) -> None:
        arm = Fake(time, "a", 1.0)
        paired = measurer.against(arm, arm, 1.0)
        assert paired.samples == paired.reference == (1.0,) * 9

    def test_a_race_takes_the_rounds_that_it_is_asked_for(self, time: FakeTime, measurer: Measurer) -> None:
        arms = Fake(time, "new", 1.0), Fake(time, "old", 1.0)
        assert len(measurer.race(arms, 200).taken) == 200

    def test_the_first_call_is_known(self, time: FakeTime, measurer: Measurer) -> None:
        measurer.alone(Fake(time, "new", 8.0, 1.0))
        (rounds,) = measurer
        assert rounds.first == {"new": 8.0}

    def test_an_error_ends_a_pair_and_is_its_own(self, time: FakeTime, measurer: Measurer) -> None:
        new, old = Fake(time, "new", 1.0), Fake(time, "old", 1.0)

        def fail() -> None:
            if old.calls == 5:
                raise RuntimeError("out of luck")

        old.before_call = fail
        with pytest.raises(RuntimeError, match=r"^out of luck$"):
            measurer.against(new, old, 1.0)
        (rounds,) = measurer
        assert len(rounds.seconds("new")) == 4

    def test_progress_names_arm_and_round(self, time: FakeTime) -> None:
        told: list[str] = []
        Measurer(Plan(3, 1e9), time.watch, told.append).alone(Fake(time, "fused", 1.0))
        assert told[0] == "fused: warming up"
        assert told[1:] == [f"fused: round {number} of at most 3" for number in (1, 2, 3)]
