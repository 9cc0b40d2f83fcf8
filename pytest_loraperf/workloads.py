"""What a test calls, as something that can be replayed: a strategy's generations, or any callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_loraperf.bench import Bench
from pytest_loraperf.measure.pairs import Workload
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import StepKind


@dataclass(frozen=True)
class StrategyWorkload:
    """Generations of one strategy's pipeline, one for each request."""

    bench: Bench
    name: str
    requests: tuple[Request, ...]

    @property
    def key(self) -> str:
        """The bench, the strategy and the requests."""
        return f"{id(self.bench)}:{self.name}:" + "|".join(request.key for request in self.requests)

    def prepare(self) -> float | None:
        """Build the pipeline; the first calls of a compiled one are no measure of the next."""
        arm = self.bench.arm(self.name)
        if arm.recipe.strategy.has(StepKind.COMPILE):
            return None
        first = [arm.first_call.get(request.key) for request in self.requests]
        return None if None in first else sum(seconds for seconds in first if seconds)

    def call(self) -> object:
        """Run all the generations."""
        return [self.bench.run(self.name, request) for request in self.requests]

    def fits_with(self, other: Workload) -> bool:
        """Ask the bench whether both pipelines fit on the device."""
        if not isinstance(other, StrategyWorkload) or other.bench is not self.bench:
            return True
        return self.bench.together((self.name, other.name))


@dataclass(frozen=True)
class CallableWorkload:
    """Any callable of the user's, with no arguments left to give."""

    name: str
    function: Callable[[], object]

    @property
    def key(self) -> str:
        """The callable itself."""
        return f"{self.name}:{id(self.function)}"

    def prepare(self) -> float | None:
        """Nothing to prepare."""
        return None

    def call(self) -> object:
        """Call it."""
        return self.function()

    def fits_with(self, other: Workload) -> bool:
        """The user's callables hold what they hold."""
        return other is not None
