"""A workload against another: interleaved where both fit on the device, in turns where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pytest_loraperf.measure.timing import Plan, Stopwatch, sample_rounds, warm_up


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

    def call(self) -> object:
        """Replay it once."""

    def fits_with(self, other: Workload) -> bool:
        """Whether both can be ready at once; makes them so where it can."""


@dataclass(frozen=True)
class Paired:
    """Seconds of a workload and of its reference, round by round."""

    samples: tuple[float, ...]
    reference: tuple[float, ...]
    interleaved: bool


@dataclass(frozen=True)
class Taken:
    """Samples of a workload as they were first taken."""

    workload: Workload
    samples: tuple[float, ...]


@dataclass
class Measurer:
    """Takes samples, and remembers them: a gate never measures again what was measured in this run."""

    plan: Plan
    watch: Stopwatch
    tell: Callable[[str], None]
    taken: list[Taken] = field(default_factory=list)
    _alone: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _pairs: dict[tuple[str, str], Paired] = field(default_factory=dict)

    def alone(self, workload: Workload) -> tuple[float, ...]:
        """Return seconds of the workload, a sample a round."""
        if workload.key not in self._alone:
            self._keep(workload, self.sample(workload)[workload.key])
        return self._alone[workload.key]

    def against(self, workload: Workload, reference: Workload) -> Paired:
        """Return seconds of both, in pairs."""
        pair = (workload.key, reference.key)
        if pair not in self._pairs:
            self._pairs[pair] = self._pair(workload, reference)
        return self._pairs[pair]

    def pair(self, key: str, reference: str) -> Paired | None:
        """Return what was measured of a pair, by the keys of both."""
        return self._pairs.get((key, reference))

    def _keep(self, workload: Workload, samples: tuple[float, ...]) -> None:
        if workload.key not in self._alone:
            self._alone[workload.key] = samples
            self.taken.append(Taken(workload, samples))

    def _pair(self, workload: Workload, reference: Workload) -> Paired:
        if workload.key == reference.key:
            samples = self.alone(workload)
            return Paired(samples, samples, interleaved=True)
        if workload.fits_with(reference):
            taken = self.sample(workload, reference)
            for each in (workload, reference):
                self._keep(each, taken[each.key])
            return Paired(taken[workload.key], taken[reference.key], interleaved=True)
        samples, others = self.alone(workload), self.alone(reference)
        rounds = min(len(samples), len(others))
        return Paired(samples[:rounds], others[:rounds], interleaved=False)

    def sample(self, *workloads: Workload) -> dict[str, tuple[float, ...]]:
        """Warm all of them up, then take rounds of all; seconds by the workload's key."""
        for workload in workloads:
            self.tell(f"{workload.name}: warming up")
            first = workload.prepare()
            warm_up(workload.call, self.watch, first)
        names = {workload.key: workload.name for workload in workloads}
        taken = sample_rounds(
            {workload.key: workload.call for workload in workloads},
            self.plan,
            self.watch,
            lambda key, number: self.tell(f"{names[key]}: round {number} of {self.plan.rounds}"),
        )
        return {key: tuple(times) for key, times in taken.by_arm.items()}
