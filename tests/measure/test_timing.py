from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from pytest_loraperf.measure.pairs import Measurer, Workload
from pytest_loraperf.measure.timing import Plan, Stopwatch, sample_rounds, warm_up


class FakeTime:
    """A clock that moves only when told, and a device whose waits are counted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0

    def spend(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call

    def spend_next(self, costs: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.now += next(costs)

        return call

    def wait(self) -> None:
        self.waits += 1

    @property
    def watch(self) -> Stopwatch:
        return Stopwatch(lambda: self.now, self.wait)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_a_call_is_synchronised_at_its_two_ends_only(time: FakeTime) -> None:
    assert time.watch.time(time.spend(1.5)) == 1.5
    assert time.waits == 2


def test_rounds_hold_every_arm_once_in_seeded_random_order(time: FakeTime) -> None:
    orders = []
    for _ in range(2):
        seen: list[str] = []
        sample_rounds(
            {name: time.spend(1.0) for name in "abc"},
            Plan(rounds=20, max_seconds=1e9),
            time.watch,
            partial(_note, seen),
        )
        rounds = ["".join(seen[i : i + 3]) for i in range(0, 60, 3)]
        assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
        assert len(set(rounds)) > 3
        orders.append(rounds)
    assert orders[0] == orders[1]


def _note(seen: list[str], name: str, _: int) -> None:
    seen.append(name)


def test_samples_are_in_the_order_of_rounds(time: FakeTime) -> None:
    costs = iter([1.0, 2.0, 3.0])
    taken = sample_rounds({"a": time.spend_next(costs)}, Plan(3, 1e9), time.watch)
    assert taken.by_arm == {"a": [1.0, 2.0, 3.0]}
    assert not taken.interleaved


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, 7), (10.0, 6), (100.0, 2)])
def test_time_ends_the_rounds_but_two_are_taken(time: FakeTime, seconds: float, rounds: int) -> None:
    taken = sample_rounds({"a": time.spend(seconds)}, Plan(7, 60.0), time.watch)
    assert len(taken.by_arm["a"]) == rounds


def test_garbage_is_held_inside_and_let_go_after(time: FakeTime) -> None:
    inside = []
    sample_rounds({"a": lambda: inside.append(gc.isenabled())}, Plan(2, 1e9), time.watch)
    assert inside == [False, False]
    assert gc.isenabled()


def test_the_error_of_a_workload_passes_through(time: FakeTime) -> None:
    def fail() -> None:
        raise RuntimeError("round 1")

    with pytest.raises(RuntimeError, match="round 1"):
        sample_rounds({"a": fail}, Plan(3, 1e9), time.watch)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("first", "costs", "calls"),
    [
        (None, [5.0, 1.0, 1.0], 3),  # the first compiles, the next two agree
        (None, [1.0, 1.0], 2),
        (1.0, [1.0], 1),  # a call was made before
        (50.0, [], 0),  # a slow one needs no other
        (None, [50.0], 1),
        (None, [8.0, 4.0, 2.0, 1.0], 4),  # never longer than this
    ],
)
def test_warm_up_calls_until_nothing_is_gained(
    time: FakeTime, first: float | None, costs: list[float], calls: int
) -> None:
    left = list(costs)
    pending = iter(left)
    warm_up(time.spend_next(pending), time.watch, first)
    assert len(costs) - len(list(pending)) == calls


class Fake:
    def __init__(self, time: FakeTime, name: str, seconds: float, *, fits: bool = True) -> None:
        self.name = self.key = name
        self.fits = fits
        self.calls = 0
        self._spend = time.spend(seconds)

    def prepare(self) -> float | None:
        return None

    def call(self) -> object:
        self.calls += 1
        return self._spend()

    def fits_with(self, other: Workload) -> bool:
        return self.fits and other is not None


def test_a_pair_is_interleaved_and_measured_once(time: FakeTime) -> None:
    measurer = Measurer(Plan(4, 1e9), time.watch, lambda _: None)
    new, old = Fake(time, "new", 1.0), Fake(time, "old", 2.0)
    paired = measurer.against(new, old)
    assert (paired.samples, paired.reference, paired.interleaved) == ((1.0,) * 4, (2.0,) * 4, True)
    calls = new.calls
    assert measurer.against(new, old) is paired
    assert measurer.alone(new) == (1.0,) * 4
    assert new.calls == calls


def test_what_does_not_fit_takes_turns(time: FakeTime) -> None:
    measurer = Measurer(Plan(3, 1e9), time.watch, lambda _: None)
    paired = measurer.against(Fake(time, "new", 1.0, fits=False), Fake(time, "old", 2.0))
    assert (paired.samples, paired.reference, paired.interleaved) == ((1.0,) * 3, (2.0,) * 3, False)


def test_progress_names_arm_and_round(time: FakeTime) -> None:
    told: list[str] = []
    Measurer(Plan(2, 1e9), time.watch, told.append).alone(Fake(time, "fused", 1.0))
    assert told == ["fused: warming up", "fused: round 1 of 2", "fused: round 2 of 2"]
