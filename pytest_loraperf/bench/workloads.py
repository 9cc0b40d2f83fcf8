"""What a test calls, as something that can be replayed: a strategy's generations, or any callable."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.rounds import Workload
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.request import MIN_STEPS, Request
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

    def call(self, tick: Tick) -> object:
        """Run all the generations; the steps that are told of are those of the first."""
        ticks = (tick, *[NO_TICK] * (len(self.requests) - 1))
        pairs = zip(self.requests, ticks, strict=True)
        return [self.bench.run(self.name, request, each) for request, each in pairs]

    def refresh(self) -> object:
        """Run all of them with the fewest steps: each step takes the same memory and kernels."""
        brief = [request.with_changes(steps=min(request.steps, MIN_STEPS)) for request in self.requests]
        return [self.bench.run(self.name, request) for request in brief]

    def fits_with(self, others: Sequence[Workload]) -> bool:
        """Ask the bench whether the pipelines fit on the device."""
        mine = [each for each in others if isinstance(each, StrategyWorkload) and each.bench is self.bench]
        return self.bench.together([self.name, *(each.name for each in mine)])


@dataclass(eq=False)
class CallableWorkload:
    """Any callable of the user's, with no arguments left to give."""

    name: str
    function: Callable[[], object]
    number: int = field(default_factory=count().__next__)
    has_run: bool = False

    @property
    def key(self) -> str:
        """The callable itself."""
        return f"{self.name}:{self.number}"

    def let_go(self) -> None:
        """Let go of the callable, and of what it holds: its samples are taken."""
        self.function = _gone

    def prepare(self) -> float | None:
        """Nothing to prepare."""
        return None

    def call(self, tick: Tick) -> object:  # noqa: ARG002 - it has no steps to tell of
        """Call it.

        Raises:
            LoraperfError: it returned before its work was done.
        """
        result = self.function()
        if not self.has_run:
            check_has_run(self.name, result)
            self.has_run = True
        return result

    def refresh(self) -> object:
        """Call it: it cannot be shortened."""
        return self.call(NO_TICK)

    def fits_with(self, others: Sequence[Workload]) -> bool:  # noqa: ARG002 - the user's callables hold what they hold
        """Whatever the others are."""
        return True


def check_callable(call: str, function: object) -> None:
    """Refuse what cannot be called.

    Raises:
        LoraperfError: the message has the ``call`` as it is meant.
    """
    if not callable(function):
        raise LoraperfError(f"{call}: found {function!r}, which cannot be called; give a function")


def check_has_run(name: str, result: object) -> None:
    """Refuse a callable whose work is still to be done when it returns: its time would be that of no work.

    Raises:
        LoraperfError: it returned a coroutine or a generator.
    """
    if isinstance(result, Coroutine | Generator | AsyncGenerator):
        if isinstance(result, Coroutine):
            result.close()  # Python would warn that nobody awaited it
        kind = "coroutine" if isinstance(result, Coroutine) else "generator"
        raise LoraperfError(
            f"the workload {name!r} returns a {kind}, which has done no work yet; "
            "give a callable that runs it to its end"
        )


def _gone() -> object:
    raise AssertionError("a workload was called after its test")
