"""Time: one synchronised call, and rounds in which every arm takes its turn."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

Call = Callable[[], object]
SLOW_CALL = 10.0
"""Seconds; a call that takes longer is warm after one, since no allocator or cache effect is as long."""
MIN_ROUNDS = 2


def _nothing() -> None:
    """Where work is synchronous there is nothing to wait for."""


@dataclass(frozen=True)
class Stopwatch:
    """A clock in seconds, and how to wait for the device; tests inject both."""

    clock: Callable[[], float] = time.perf_counter
    synchronize: Callable[[], None] = _nothing

    def time(self, call: Call) -> float:
        """Return the wall time of one call in seconds, synchronised at its two ends only."""
        self.synchronize()
        start = self.clock()
        call()
        self.synchronize()
        return self.clock() - start


@dataclass(frozen=True)
class Plan:
    """How many rounds to take.

    ``max_seconds`` of measuring an arm end the rounds early, though never before two; ``seed`` orders the arms
    within each round.
    """

    rounds: int
    max_seconds: float
    seed: int = 0


@dataclass
class Samples:
    """Seconds of each arm, round by round, and whether the arms took turns within each round."""

    interleaved: bool
    by_arm: dict[str, list[float]] = field(default_factory=dict)


def warm_up(call: Call, watch: Stopwatch, first: float | None = None) -> None:
    """Call until it is as fast as it gets: compilation, allocation and caches are no samples.

    ``first`` is the time of a call already made; a slow one needs no second.
    """
    last = watch.time(call) if first is None else first
    for _ in range(3):
        if last > SLOW_CALL:
            return
        again = watch.time(call)
        if again > 0.8 * last:
            return
        last = again


def sample_rounds(
    calls: Mapping[str, Call],
    plan: Plan,
    watch: Stopwatch,
    on_round: Callable[[str, int], None] | None = None,
) -> Samples:
    """Take rounds: in each, every arm once, in a seeded random order.

    ``on_round(arm, number)`` is called before each sample. A workload's own error passes through; the rounds
    before it are whole.
    """
    order = random.Random(plan.seed)  # noqa: S311 - an order of turns is no secret
    samples = Samples(interleaved=len(calls) > 1, by_arm={name: [] for name in calls})
    with garbage_held():
        for number in range(1, plan.rounds + 1):
            names = list(calls)
            order.shuffle(names)
            taken = {}
            for name in names:
                if on_round:
                    on_round(name, number)
                taken[name] = watch.time(calls[name])
            for name, seconds in taken.items():
                samples.by_arm[name].append(seconds)
            spent = max(sum(times) for times in samples.by_arm.values())
            if number >= MIN_ROUNDS and spent >= plan.max_seconds:
                break
    return samples


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
