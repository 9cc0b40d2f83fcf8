"""A race: several arms, interleaved, compared in the body of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_loraperf.bench import Bench
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.pairs import Workload
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session
from pytest_loraperf.verdict.decision import Decision, decide
from pytest_loraperf.workloads import CallableWorkload, StrategyWorkload


@dataclass(frozen=True)
class Race:
    """Seconds of each arm, round by round; ``interleaved`` is False where the arms took turns in blocks."""

    samples: Mapping[str, tuple[float, ...]]
    interleaved: bool

    def seconds(self, arm: str) -> float:
        """Return the median time of an arm in seconds."""
        return median(self._of(arm))

    def ratio(self, arm: str, of: str) -> float:
        """Return the median ratio of the times of two arms, taken within rounds."""
        return self.decide(arm, of, max_ratio=1.0).ratio

    def decide(self, arm: str, of: str, *, max_ratio: float) -> Decision:
        """Judge whether an arm takes at most ``max_ratio`` times as long as another."""
        samples, reference = self._of(arm), self._of(of)
        rounds = min(len(samples), len(reference))
        return decide(samples[:rounds], reference[:rounds], max_ratio=max_ratio)

    def _of(self, arm: str) -> tuple[float, ...]:
        if arm not in self.samples:
            raise LoraperfError(f"no arm {arm!r} in this race; the arms are {', '.join(self.samples)}")
        return self.samples[arm]


def run_race(
    session: Session,
    bench: Bench | None,
    strategies: Sequence[str],
    request: Request | None,
    callables: Mapping[str, Callable[[], object]],
    rounds: int | None,
) -> Race:
    """Measure all arms: in the same rounds where they fit on the device together, else one after the other.

    Raises:
        LoraperfError: fewer than two arms, an unknown strategy, or too few rounds.
    """
    if len(strategies) + len(callables) < 2:  # noqa: PLR2004 - it takes two to race
        raise LoraperfError("lora_race compares at least two arms; name strategies, or give callables by keyword")
    if rounds is not None and rounds < 2:  # noqa: PLR2004 - one round has no interval
        raise LoraperfError(f"lora_race: rounds={rounds!r}; at least 2 are needed")
    arms: list[Workload] = [CallableWorkload(name, function) for name, function in callables.items()]
    if bench is not None and request is not None:
        found = [session.strategies.find(name).name for name in strategies]
        arms += [StrategyWorkload(bench, name, (request,)) for name in found]
    measurer = session.measurer
    if rounds is not None:
        measurer = replace(measurer, plan=replace(measurer.plan, rounds=rounds), _alone={}, _pairs={})
    together = bench is None or bench.together(strategies)
    taken = measurer.sample(*arms) if together else {arm.key: measurer.alone(arm) for arm in arms}
    return Race({arm.name: taken[arm.key] for arm in arms}, interleaved=together)
