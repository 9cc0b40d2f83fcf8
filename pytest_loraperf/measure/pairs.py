"""The measurer: takes what a gate needs, as few rounds as can tell, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from pytest_loraperf.measure.rounds import Enough, Observe, Paired, Rounds, Workload, take_rounds, unobserved
from pytest_loraperf.measure.timing import Plan, Stopwatch
from pytest_loraperf.verdict.decision import FIRST_LOOK, settled


@dataclass
class Measurer:
    """Takes samples, and remembers them: a gate that needs more adds to what was measured in this run."""

    plan: Plan
    watch: Stopwatch
    tell: Callable[[str], None]
    observe: Observe = unobserved
    alone_on_device: Callable[[], AbstractContextManager[None]] = nullcontext
    _groups: dict[tuple[str, ...], Rounds] = field(default_factory=dict)

    def alone(self, workload: Workload, limit: float | None = None) -> tuple[float, ...]:
        """Return seconds of the workload, a sample a round: enough to judge a limit in seconds, if they can."""
        key = workload.key

        def pairs(rounds: Rounds) -> Paired:
            taken = rounds.seconds(key)
            return Paired(taken, (limit or 1.0,) * len(taken), interleaved=True)

        ratio = None if limit is None else 1.0
        known = next((rounds for rounds in self.of(key) if _until(pairs, ratio)(rounds)), None)
        rounds = known or self._take(_until(pairs, ratio), workload)
        rounds.raise_error(key)
        return rounds.seconds(key)

    def against(self, workload: Workload, reference: Workload, max_ratio: float | None = None) -> Paired:
        """Return seconds of both, in pairs: enough to judge a limit on their ratio, if they can."""
        if workload.key == reference.key:
            samples = self.alone(workload)
            return Paired(samples, samples, interleaved=True)

        # With no limit to judge, as many rounds as the plan has.
        told = _until(lambda rounds: rounds.paired(workload.key, reference.key), max_ratio, self.plan.rounds)
        # An arm that raised leaves no more pairs.
        rounds = self._take(lambda rounds: bool(rounds.errors) or told(rounds), workload, reference)
        rounds.raise_error(workload.key, reference.key)
        return rounds.paired(workload.key, reference.key)

    def race(self, workloads: tuple[Workload, ...], count: int) -> Rounds:
        """Return so many rounds of all, if the plan's time allows; an arm that raises leaves the race."""
        measurer = replace(self, plan=replace(self.plan, rounds=count))
        return measurer._take(lambda rounds: len(rounds.counted()) >= count, *workloads)  # noqa: SLF001 - its own kind

    def at_least(self, count: int, *workloads: Workload) -> Rounds:
        """Return at least so many rounds of these, if the plan allows; an arm that raises ends them."""
        return self._take(lambda rounds: bool(rounds.errors) or len(rounds.counted()) >= count, *workloads)

    def of(self, key: str) -> Iterator[Rounds]:
        """Yield what was taken of a workload, each time that it was measured."""
        return (rounds for rounds in self._groups.values() if rounds.samples(key))

    def pair(self, key: str, reference: str) -> Rounds | None:
        """Return what was taken of a pair, by the keys of both."""
        return self._groups.get((key, reference))

    def __iter__(self) -> Iterator[Rounds]:
        return iter(self._groups.values())

    def _take(self, enough: Enough, *workloads: Workload) -> Rounds:
        keys = tuple(workload.key for workload in workloads)
        rounds = self._groups.get(keys)
        if rounds is None:
            together = all(workload.fits_with(workloads) for workload in workloads)
            rounds = Rounds(workloads, interleaved=together)
            self._groups[keys] = rounds
        elif not enough(rounds) and rounds.interleaved:
            # What came between may have taken them off the device.
            rounds.interleaved = all(workload.fits_with(workloads) for workload in workloads)
        if not enough(rounds):
            with self.alone_on_device():
                for workload in workloads:
                    self.tell(f"{workload.name}: warming up")
                take_rounds(rounds, self.plan, self.watch, enough, self._on_sample, self.observe)
        return rounds

    def _on_sample(self, workload: Workload, number: int) -> None:
        self.tell(f"{workload.name}: round {number} of at most {self.plan.rounds}")


def _until(pairs: Callable[[Rounds], Paired], max_ratio: float | None, count: int = FIRST_LOOK) -> Enough:
    """Return what ends the rounds: a settled limit, or where there is none so many of them."""
    looked_at, told = 0, False

    def enough(rounds: Rounds) -> bool:
        nonlocal looked_at, told
        paired = pairs(rounds)
        if max_ratio is None:
            return len(paired.samples) >= count
        before, looked_at = looked_at, len(paired.samples)
        told = told or settled(paired.samples, paired.reference, max_ratio, before)
        return told

    return enough
