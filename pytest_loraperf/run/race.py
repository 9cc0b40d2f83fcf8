"""A race: several arms, interleaved, compared in the body of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.bench.workloads import CallableWorkload, StrategyWorkload, check_callable
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.rounds import MIN_ROUNDS, Workload
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.verdict.decision import FIRST_LOOK, Decision, decide, estimate


@dataclass(frozen=True)
class Race:
    """Seconds of each arm, round by round; ``interleaved`` is False where the arms took turns in blocks.

    An arm that raised has the samples from before, and raises its own error when it is asked for.
    """

    samples: Mapping[str, tuple[float, ...]]
    interleaved: bool
    errors: Mapping[str, Exception] = field(default_factory=dict)

    def seconds(self, arm: str) -> float:
        """Return the median time of an arm in seconds."""
        return median(self._of(arm))

    def ratio(self, arm: str, of: str) -> float:
        """Return the ratio of the times of two arms, taken within rounds."""
        return estimate(*self._both(arm, of))[0]

    def decide(self, arm: str, of: str, *, max_ratio: float) -> Decision:
        """Judge whether an arm takes at most ``max_ratio`` times as long as another."""
        return decide(*self._both(arm, of), max_ratio=max_ratio)

    def _both(self, arm: str, of: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        samples, reference = self._of(arm), self._of(of)
        rounds = min(len(samples), len(reference))
        return samples[:rounds], reference[:rounds]

    def _of(self, arm: str) -> tuple[float, ...]:
        if arm not in self.samples:
            raise LoraperfError(f"no arm {arm!r} in this race; the arms are {', '.join(self.samples)}")
        if arm in self.errors:
            raise self.errors[arm]
        return self.samples[arm]


def run_race(
    session: Session,
    record: TestRecord,
    bench: Bench | None,
    strategies: Sequence[str],
    request: Request | None,
    callables: Mapping[str, Callable[[], object]],
    rounds: int | None,
) -> Race:
    """Measure all arms: in the same rounds where they fit on the device together, else in turns.

    Raises:
        LoraperfError: fewer than two arms, an unknown strategy, or too few rounds.
    """
    if len(strategies) + len(callables) < 2:  # noqa: PLR2004 - it takes two to race
        raise LoraperfError("lora_race compares at least two arms; name strategies, or give callables by keyword")
    if rounds is not None and rounds < MIN_ROUNDS:
        raise LoraperfError(f"lora_race: rounds={rounds!r}; at least {MIN_ROUNDS} are needed")
    for name, function in callables.items():
        check_callable(f"lora_race({name}=…)", function)
    given = [CallableWorkload(name, function) for name, function in callables.items()]
    arms: list[Workload] = [*given]
    if bench is not None and request is not None:
        found = [session.strategies.find(name).name for name in strategies]
        arms += [StrategyWorkload(bench, name, (request,)) for name in found]
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise LoraperfError(f"lora_race: two arms are named {twice!r}; give the callable another keyword")
    record.raced.extend(given)
    taken = session.measurer.race(tuple(arms), rounds or FIRST_LOOK)
    errors = {arm.name: taken.errors[arm.key] for arm in arms if arm.key in taken.errors}
    for name, error in errors.items():
        if isinstance(error, LoraperfError):
            raise error
        session.notes[f"warning: lora_race: {name} raised {type(error).__name__}: {error}"] = None
    return Race({arm.name: taken.seconds(arm.key) for arm in arms}, taken.interleaved, errors)
