from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_loraperf.errors import ClockError
from pytest_loraperf.measure.timing import HostMark, Sample, Stopwatch, Tick, warm_up


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


class GpuTime:
    """A GPU whose clock runs at half the host's pace."""

    def __init__(self, time: FakeTime) -> None:
        self.time = time

    def mark(self) -> HostMark:
        return HostMark(self.time.now / 2)


def three_steps(time: FakeTime) -> Callable[[Tick], None]:
    def call(tick: Tick) -> None:
        time.now += 0.5  # the prompt
        for cost in (3.0, 1.0, 1.0):
            tick()
            time.now += cost
        tick()
        time.now += 0.25  # the image

    return call


def test_steps_are_told_apart_from_what_is_before_and_after(time: FakeTime) -> None:
    assert time.watch.sample(three_steps(time)) == Sample(5.75, None, (3.0, 1.0, 1.0))


def test_a_gpu_times_its_own_work(time: FakeTime) -> None:
    watch = Stopwatch(lambda: time.now, time.wait, GpuTime(time).mark)
    assert watch.sample(three_steps(time)) == Sample(5.75, 2.875, (1.5, 0.5, 0.5))
    assert time.waits == 2


def test_a_call_that_tells_of_no_steps_has_none(time: FakeTime) -> None:
    assert time.watch.sample(lambda _: None).steps == ()


def test_a_clock_that_goes_back_tells_no_time(time: FakeTime) -> None:
    message = (
        r"^the clock went back by 500.0 ms during a call; no time can be told by it; look what sets it "
        r"\(a virtual machine that was moved or paused\), and run again$"
    )
    with pytest.raises(ClockError, match=message):
        time.watch.sample(lambda _: time.spend(-0.5)())
    assert time.watch.time(time.spend(1.5)) == 1.5


@pytest.mark.parametrize(
    ("first", "costs", "calls"),
    [
        (None, [5.0, 1.0, 1.0], 3),  # the first compiles, the next two agree
        (None, [1.0, 1.0], 2),
        (1.0, [1.0], 1),  # a call was made before
        (1.1, [], 0),  # a slow one needs no other
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
