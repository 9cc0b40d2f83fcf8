"""The bench of a forecast: the one that measures, on a card that is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pytest_loraperf.backends import load_backend
from pytest_loraperf.backends.protocol import Choices, Generation
from pytest_loraperf.bench.adapters import Adapters
from pytest_loraperf.bench.arm import Arm
from pytest_loraperf.bench.bench import Bench, Workshop
from pytest_loraperf.bench.breakdown import Call, PeakFinder
from pytest_loraperf.forecast.card import Card
from pytest_loraperf.forecast.meter import ForecastMeter
from pytest_loraperf.lora import Adapter, AdapterSource
from pytest_loraperf.lora.adapter import LoraLayer
from pytest_loraperf.lora.synthetic import RANK
from pytest_loraperf.measure.ledger import Ledger
from pytest_loraperf.measure.timing import NO_TICK, Stopwatch, Tick
from pytest_loraperf.models import ModelSpec
from pytest_loraperf.registry import DEFAULT
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Strategies


class ForecastBench(Bench):
    """Builds one strategy's pipeline without values; what needs values, the LoRA's effect, is left out."""

    def __init__(
        self, shop: Workshop, model: ModelSpec, adapters: Sequence[str | Path], meter: ForecastMeter
    ) -> None:
        self._meter = meter
        super().__init__(shop, model, adapters)
        self.largest_call: Call | None = None

    def run(self, name: str, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run one generation of an arm that is on the bench, equal blocks of it once."""
        pipeline = self.arms[name].pipeline
        self._meter.replay.look_for_blocks(pipeline)
        finder = PeakFinder(self._meter, pipeline)
        with finder.looking():
            generation = super().run(name, request, tick)
        self.largest_call = finder.found
        return generation

    def _read_by(self, named: Sequence[str | Path]) -> Adapters:
        return ShapedAdapters(self.model, named, self.shop.backend, self.shop.device.torch_name)

    def _base_of(self, arm: Arm) -> None:
        """Leave it: outputs of layers have no values here."""


class ShapedAdapters(Adapters):
    """A synthetic one of the right shapes, without values."""

    def synthetic(self, pipeline: Any) -> Adapter:
        """Return an adapter like the one that a measurement makes; no file is written."""
        shapes = self.backend.lora_shapes(pipeline)
        layers = {name: _layer(name, *shapes[name]) for name in self.backend.lora_targets(pipeline)}
        return Adapter(AdapterSource(Path("synthetic.safetensors")), "diffsynth", layers)


def _layer(name: str, out_features: int, in_features: int) -> LoraLayer:
    rank = min(RANK, out_features, in_features)
    down = torch.empty(rank, in_features, dtype=torch.bfloat16)
    return LoraLayer(name, down, torch.empty(out_features, rank, dtype=torch.bfloat16))


def forecast_bench(
    card: Card,
    model: ModelSpec,
    adapters: Sequence[str | Path],
    strategies: Strategies,
    choices: Choices,
    tell: Callable[[str], None],
    backend: str = DEFAULT,
) -> ForecastBench:
    """Return a bench for one strategy, which has the card for itself.

    Raises:
        LoraperfError: the backend cannot be used, or an adapter's source is not understood.
    """
    device, meter = card.device(), ForecastMeter(card)
    shop = Workshop(
        device=device,
        backend=load_backend(device, backend),
        strategies=strategies,
        choices=choices,
        ledger=Ledger(meter),
        watch=Stopwatch(),
        tell=tell,
    )
    return ForecastBench(shop, model, adapters, meter)
