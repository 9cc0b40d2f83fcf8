"""Time: one synchronised call, its GPU time and steps, and how a call is warmed up."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from pytest_loraperf.errors import ClockError
from pytest_loraperf.units import format_duration

SLOW_CALL = 10.0
"""Seconds; a call that takes longer is warm after one, since no allocator or cache effect is as long."""
SLOW_GENERATION = 1.0
"""Seconds; the same for a call that is known not to compile: kernels are loaded and memory reserved in its first
step, and on an H100 the first generation takes up to 0.5 s more, the second none."""

MEND_CLOCK = (
    "no time can be told by it; look what sets it (a virtual machine that was moved or paused), and run again"
)


class Mark(Protocol):
    """A moment of the work: of the host's, or of the GPU's where the launches are marked."""

    def since(self, earlier: Any) -> float:
        """Seconds from an earlier mark of the same kind; asked for only once the device has been waited for."""


Tick = Callable[[], None]
Call = Callable[[], object]
TickingCall = Callable[[Tick], object]
"""A call that is given ``tick``, and calls it where a denoising step begins and after the last."""


@dataclass(frozen=True)
class Sample:
    """One timed call, in seconds.

    ``seconds`` is wall time, synchronised at both ends; ``gpu_seconds`` the time between the first and the last
    launch on the GPU, None without CUDA; ``steps`` holds each denoising step where the call told of them, on the
    GPU's clock where there is one.
    """

    seconds: float
    gpu_seconds: float | None = None
    steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class HostMark:
    """A moment of the host's clock, in seconds."""

    now: float

    def since(self, earlier: HostMark) -> float:
        """Seconds from an earlier mark."""
        return self.now - earlier.now


def _nothing() -> None:
    """Where work is synchronous there is nothing to wait for, where nobody counts steps nothing to tell."""


NO_TICK: Tick = _nothing


@dataclass(frozen=True)
class Stopwatch:
    """A clock in seconds, how to wait for the device, and how to mark the GPU's work; tests inject all three."""

    clock: Callable[[], float] = time.perf_counter
    synchronize: Callable[[], None] = _nothing
    gpu_mark: Callable[[], Mark] | None = None

    def time(self, call: Call) -> float:
        """Return the wall time of one call in seconds, synchronised at its two ends only."""
        return self.sample(lambda _: call()).seconds

    def sample(self, call: TickingCall) -> Sample:
        """Time one call; nothing waits for the device between its two ends.

        Raises:
            ClockError: the clock went back meanwhile.
        """
        mark = self.gpu_mark or (lambda: HostMark(self.clock()))
        marks: list[Mark] = []
        self.synchronize()
        start = self.clock()
        marks.append(mark())
        call(lambda: marks.append(mark()))
        marks.append(mark())
        self.synchronize()
        seconds = self.clock() - start
        if seconds < 0:
            raise ClockError(f"the clock went back by {format_duration(-seconds)} during a call; {MEND_CLOCK}")
        gaps = tuple(later.since(earlier) for earlier, later in pairwise(marks))
        whole = marks[-1].since(marks[0]) if self.gpu_mark else None
        # Before the first step prompts are encoded, after the last the image is decoded.
        return Sample(seconds, whole, gaps[1:-1])


@dataclass(frozen=True)
class Plan:
    """How many rounds to take at most, and for how long.

    ``max_seconds`` of one arm end them, though never before three; ``seed`` orders the arms within each round.
    """

    rounds: int
    max_seconds: float
    seed: int = 0


def warm_up(call: Call, watch: Stopwatch, first: float | None = None) -> float:
    """Call until it is as fast as it gets: compilation, allocation and caches are no samples.

    ``first`` is the time of a call already made, of what does not compile; a slow one needs no second. Returns the
    first call's seconds.
    """
    if first is not None and first > SLOW_GENERATION:
        return first
    start = last = watch.time(call) if first is None else first
    for _ in range(3):
        if last > SLOW_CALL:
            break
        again = watch.time(call)
        if again > 0.8 * last:
            break
        last = again
    return start


@contextmanager
def garbage_held() -> Iterator[None]:
    """Hold garbage until the end: a collection inside a sample is no property of an arm."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
