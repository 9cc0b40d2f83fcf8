"""Rounds: one sample of every arm, in a seeded random order, until enough is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Protocol

from pytest_loraperf.errors import ClockError, LoraperfError, clear_frames, out_of_memory
from pytest_loraperf.measure.timing import (
    NO_TICK,
    Plan,
    Sample,
    Stopwatch,
    Tick,
    garbage_held,
    warm_up,
)
from pytest_loraperf.measure.validity import keep_rounds

if TYPE_CHECKING:
    from pytest_loraperf.gpu.nvml import Reading

MIN_ROUNDS = 3
"""What is taken however long it takes: fewer rounds decide nothing."""
BLOCK = 2
"""Samples of an arm in a block at most."""
BLOCK_SECONDS = 0.5
"""Seconds of samples after which a block takes no more: what differs between blocks is then the larger noise."""


class Workload(Protocol):
    """A callable and its requests, replayed for measuring."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def key(self) -> str:
        """What it is, requests included: equal keys are measured once."""

    def prepare(self) -> float | None:
        """Make it ready to be called; return the seconds of a first call that warmed it, if there was one."""

    def call(self, tick: Tick) -> object:
        """Replay it once; ``tick`` is called where a denoising step begins, and after the last."""

    def refresh(self) -> object:
        """Fetch what it lost since it was last warm, such as the allocator's memory: a call, or a shorter one."""

    def fits_with(self, others: Sequence[Workload]) -> bool:
        """Whether it can be ready at once with all of these; makes them so where it can."""


@dataclass(frozen=True)
class Paired:
    """Seconds of a workload and of its reference, round by round."""

    samples: tuple[float, ...]
    reference: tuple[float, ...]
    interleaved: bool


@dataclass
class Rounds:
    """What was taken of some arms.

    Each round has a sample of every arm. Arms that are not ``interleaved`` did not fit on the device together and
    took turns: a round is then a block of calls of each, made ready afresh, its samples their medians. No two
    rounds share a block, so that what distinguishes block from block is in the interval like all other noise.
    ``order`` has the keys as they were called, and ``readings`` what the GPU did meanwhile; rounds under
    throttling are in ``taken`` but do not count. ``spent`` is all the seconds that an arm cost, ``first`` those
    of its first call.
    """

    workloads: tuple[Workload, ...]
    interleaved: bool = True
    taken: list[dict[str, Sample]] = field(default_factory=list)
    readings: list[dict[str, Reading | None]] = field(default_factory=list)
    order: list[tuple[str, ...]] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the arms."""
        return tuple(workload.key for workload in self.workloads)

    def counted(self) -> list[dict[str, Sample]]:
        """Return the rounds that count."""
        return [self.taken[index] for index in keep_rounds(self.readings)]

    def dropped(self) -> tuple[int, ...]:
        """Return the rounds that do not count, from 0."""
        kept = set(keep_rounds(self.readings))
        return tuple(index for index in range(len(self.taken)) if index not in kept)

    def samples(self, key: str) -> tuple[Sample, ...]:
        """Return the samples of one arm that count."""
        return tuple(found[key] for found in self.counted() if key in found)

    def seconds(self, key: str) -> tuple[float, ...]:
        """Return the wall seconds of one arm."""
        return tuple(sample.seconds for sample in self.samples(key))

    def paired(self, key: str, reference: str) -> Paired:
        """Return the seconds of two arms in the rounds that both have."""
        both = [found for found in self.counted() if key in found and reference in found]
        return Paired(
            tuple(found[key].seconds for found in both),
            tuple(found[reference].seconds for found in both),
            self.interleaved,
        )

    def raise_error(self, *keys: str) -> None:
        """Raise what one of these arms raised, its own error as it was.

        Raises:
            LoraperfError: its memory ran out, or the clock is no good.
        """
        names = {workload.key: workload.name for workload in self.workloads}
        for key in keys:
            error = self.errors.get(key)
            if isinstance(error, ClockError):
                raise ClockError(f"{names[key]}: {error}") from error
            if (reason := out_of_memory(error)) is not None:
                raise LoraperfError(f"{names[key]}: out of memory while it was measured: {reason}") from error
            if error is not None:
                raise error


Enough = Callable[[Rounds], bool]
OnSample = Callable[[Workload, int], None]
Observe = Callable[[], "Reading | None"]


def unobserved() -> None:
    """Where there is no GPU there is nothing to watch."""


def take_rounds(
    rounds: Rounds,
    plan: Plan,
    watch: Stopwatch,
    enough: Enough,
    on_sample: OnSample,
    observe: Observe = unobserved,
) -> None:
    """Take rounds until it is enough, or the plan's limits are reached; what was taken before counts.

    An arm that raises is left out from then on, its error kept, its samples too. ``on_sample(workload, number)``
    is called before each sample, ``observe()`` after it.
    """
    turn = _interleaved(rounds, watch) if rounds.interleaved else _in_turns(rounds, watch)
    while not enough(rounds) and not _exhausted(rounds, plan):
        number = len(rounds.taken) + 1
        arms = [workload for workload in rounds.workloads if workload.key not in rounds.errors]
        if not arms:
            return
        found: dict[str, Sample] = {}
        readings: dict[str, Reading | None] = {}
        order = _order(arms, plan.seed, number, shuffled=rounds.interleaved)
        for workload in order:
            on_sample(workload, number)
            try:
                found[workload.key] = turn(workload)
            except Exception as error:  # noqa: BLE001 - the user's; raised once the others have finished
                _left(rounds, workload, error)
                continue
            readings[workload.key] = observe()
        if found:
            rounds.taken.append(found)
            rounds.readings.append(readings)
            rounds.order.append(tuple(workload.key for workload in order))


def _left(rounds: Rounds, workload: Workload, error: Exception) -> None:
    """Note the error of an arm; the frames that it went through hold tensors, and the error is kept."""
    clear_frames(error)
    rounds.errors[workload.key] = error


def _exhausted(rounds: Rounds, plan: Plan) -> bool:
    taken = len(rounds.taken)
    # Throttled rounds do not count, but neither do they go on for ever.
    if len(rounds.counted()) < min(MIN_ROUNDS, plan.rounds) and taken < 2 * MIN_ROUNDS:
        return False
    return taken >= plan.rounds or max(rounds.spent.values(), default=0.0) >= plan.max_seconds


def _order(arms: Sequence[Workload], seed: int, number: int, *, shuffled: bool) -> list[Workload]:
    """Return the arms of a round in their order; in turns always the same, so that each has to be made ready."""
    if not shuffled:
        return list(arms)
    order = list(arms)
    random.Random(f"{seed}:{number}").shuffle(order)  # noqa: S311 - an order of turns is no secret
    return order


def _interleaved(rounds: Rounds, watch: Stopwatch) -> Callable[[Workload], Sample]:
    for workload in rounds.workloads:
        try:
            _make_ready(rounds, workload, watch)
        except Exception as error:  # noqa: BLE001 - the same
            _left(rounds, workload, error)

    def turn(workload: Workload) -> Sample:
        with garbage_held():
            sample = _sample(watch, workload)
        rounds.spent[workload.key] = rounds.spent.get(workload.key, 0.0) + sample.seconds
        return sample

    return turn


def _in_turns(rounds: Rounds, watch: Stopwatch) -> Callable[[Workload], Sample]:
    def turn(workload: Workload) -> Sample:
        start = watch.clock()
        _make_ready(rounds, workload, watch)
        with garbage_held():
            samples = [_sample(watch, workload)]
            while len(samples) < BLOCK and sum(sample.seconds for sample in samples) < BLOCK_SECONDS:
                samples.append(_sample(watch, workload))
        rounds.spent[workload.key] = rounds.spent.get(workload.key, 0.0) + watch.clock() - start
        return _middle(samples)

    return turn


def _sample(watch: Stopwatch, workload: Workload) -> Sample:
    """Take one sample; no time at all is none, and would be a ratio of nothing to something."""
    sample = watch.sample(workload.call)
    if sample.seconds <= 0:
        raise ClockError(
            "a call took no time by the clock, which is too coarse or stands still; "
            "repeat the work inside the callable, or mend the clock"
        )
    return sample


def _make_ready(rounds: Rounds, workload: Workload, watch: Stopwatch) -> None:
    first = workload.prepare()
    if first is not None and rounds.taken and workload.key in rounds.taken[-1]:
        workload.refresh()  # it was warm a round ago, and need not compile
        return
    called = warm_up(lambda: workload.call(NO_TICK), watch, first)
    rounds.first.setdefault(workload.key, called)


def _middle(samples: Sequence[Sample]) -> Sample:
    """Return the medians of a block."""
    on_gpu = [sample.gpu_seconds for sample in samples if sample.gpu_seconds is not None]
    return Sample(
        median(sample.seconds for sample in samples),
        median(on_gpu) if on_gpu else None,
        tuple(median(step) for step in zip(*(sample.steps for sample in samples), strict=False)),
    )
