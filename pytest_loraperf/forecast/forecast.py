"""One forecast: what a strategy would need of a card for a request, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_loraperf.backends.protocol import Choices, StepRecord
from pytest_loraperf.bench.arm import Arm
from pytest_loraperf.bench.breakdown import spent
from pytest_loraperf.errors import AdapterError, ModelError, said
from pytest_loraperf.forecast.bench import ForecastBench, forecast_bench
from pytest_loraperf.forecast.card import Card
from pytest_loraperf.models import ModelSpec, Pretrained
from pytest_loraperf.registry import DEFAULT
from pytest_loraperf.request import Request
from pytest_loraperf.specs import PHASES
from pytest_loraperf.strategies import Strategies
from pytest_loraperf.verdict.spent import Spent

STEPS = 2
"""Denoising steps that are run: the others repeat the second, and need no more."""


@dataclass(frozen=True)
class Forecast:
    """Bytes by phase, as they are measured on a GPU: ``phases`` has setup, resident and runtime.

    ``allocated`` is the most that live tensors take; ``steps`` are those of the set-up, each with its peak;
    ``spent`` says what the memory of each phase is; ``error`` says why there is nothing; ``backend`` is what built
    it, name and version.
    """

    name: str
    model: ModelSpec
    request: Request
    adapters: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    scheme: str | None = None
    scheme_reason: str | None = None
    mistake: str | None = None
    notes: tuple[str, ...] = ()
    phases: dict[str, int] = field(default_factory=dict)
    allocated: int = 0
    setup: tuple[StepRecord, ...] = ()
    spent: Mapping[str, Spent] = field(default_factory=dict)
    error: str | None = None
    backend: str = ""

    @property
    def peak(self) -> tuple[int, str]:
        """The most that a card must have, and in which phase."""
        return max((size, phase) for phase, size in self.phases.items())


@dataclass(frozen=True)
class Forecaster:
    """Forecasts for one card; each strategy has it for itself."""

    card: Card
    strategies: Strategies
    choices: Choices
    tell: Callable[[str], None]
    backend: str = DEFAULT

    def forecast(self, name: str, model: ModelSpec, adapters: Sequence[str | Path], request: Request) -> Forecast:
        """Build a strategy's pipeline and run a generation without values; what cannot be done is its ``error``.

        Raises:
            LoraperfError: the model, an adapter or the strategy is not understood.
        """
        if isinstance(model, Pretrained):
            raise ModelError(
                f"model {str(model)!r}: a forecast reads no weight files; use synthetic:full, or "
                "package.module:function"
            )
        strategy = self.strategies.find(name)
        bench = forecast_bench(self.card, model, adapters, self.strategies, self.choices, self.tell, self.backend)
        bench.adapters.read()
        error = None
        try:
            self.tell(f"{name}: building {model} without values")
            bench.arm(name)
            self.tell(f"{name}: generating without values")
            bench.generate(name, _shortened(request))
        except (AdapterError, ModelError):
            raise  # what is wrong with the files is wrong in every strategy
        except Exception as problem:  # noqa: BLE001 - what one strategy raises must not cost the others their forecast
            error = said(problem)
        arm = bench.arms[name]
        recipe = arm.recipe
        found = Forecast(
            name=strategy.name,
            model=model,
            request=request,
            adapters=bench.adapters.labels,
            steps=tuple(map(str, recipe.strategy.steps)),
            scheme=recipe.scheme,
            scheme_reason=recipe.scheme_reason,
            mistake=strategy.mistake,
            notes=recipe.notes,
            error=error,
            backend=f"{bench.shop.backend.name} {bench.shop.backend.version}",
        )
        if error is None:
            found = replace(_with_sizes(found, arm), spent=_spent(bench, arm))
        bench.close()
        return found


def _shortened(request: Request) -> Request:
    return request.with_changes(steps=min(request.steps, STEPS))


def _spent(bench: ForecastBench, arm: Arm) -> dict[str, Spent]:
    return {phase: spent(arm, phase, bench.shop.ledger.meter, bench.largest_call) for phase in PHASES}


def _with_sizes(found: Forecast, arm: Arm) -> Forecast:
    return replace(
        found,
        phases={
            "setup": arm.setup_peak.needed,
            "resident": arm.resident,
            "runtime": arm.runtime_peak.needed,
        },
        allocated=max(arm.setup_peak.allocated, arm.runtime_peak.allocated),
        setup=tuple(arm.setup),
    )
