"""Which pipelines stay on the device, by a backend that only pretends to hold memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.protocol import Choices, Generation, Recipe, StepEffect
from pytest_loraperf.bench import Bench, Workshop
from pytest_loraperf.errors import LoraperfError, StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import Match
from pytest_loraperf.measure.ledger import Ledger
from pytest_loraperf.measure.timing import NO_TICK, Stopwatch, Tick
from pytest_loraperf.models import ModelSpec, Synthetic
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import QUANTIZE, Step, StepKind, Strategies, Strategy

GB = 2**30
CARD = Device("cuda:0", "a card", 80 * GB, (9, 0))


class Card:
    """A device's memory, in which pipelines hold what they say."""

    kind = "VRAM"

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.top = 0
        self.neighbours = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        yield

    def level(self) -> int:
        return sum(self.held.values())

    def touch(self, extra: int = 0) -> None:
        self.top = max(self.top, self.level() + extra)

    def reset_peak(self) -> None:
        self.top = self.level()

    def peak(self) -> int:
        return self.top

    def allocated(self) -> int:
        return self.level()

    def allocated_peak(self) -> int:
        return self.top

    def free(self) -> int:
        return CARD.total - self.overhead() - self.level() - self.neighbours

    def overhead(self) -> int:
        return GB // 2


class Pipeline:
    def __init__(self, card: Card, size: int) -> None:
        self.card = card
        self.resize(size)

    def resize(self, size: int) -> None:
        self.card.held[id(self)] = size
        self.card.touch()

    def __del__(self) -> None:
        self.card.held.pop(id(self), None)


class Pretend:
    """Pipelines of 39 GB, or 19 once quantized; generating takes 1 GB more."""

    name, version = "pretend", "1"

    def __init__(self, card: Card) -> None:
        self.card = card
        self.built: list[str] = []
        self.idle = False

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        assert device.is_cuda
        assert choices == Choices()
        return Recipe(strategy)

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> Pipeline:
        self.built.append(str(model) + device.torch_name)
        return Pipeline(self.card, 0 if on_cpu else 39 * GB)

    def lora_shapes(self, pipeline: Any) -> dict[str, tuple[int, int]]:
        return {"layer": (4, 4)} if pipeline else {}

    def lora_targets(self, pipeline: Any) -> list[str]:
        return list(self.lora_shapes(pipeline))

    def apply(self, pipeline: Any, step: Step, adapters: Sequence[Match]) -> StepEffect:
        assert not adapters
        if step.kind is StepKind.QUANTIZE:
            pipeline.resize(19 * GB)
        return StepEffect(0 if self.idle else 1, 1)

    def generate(self, pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
        self.card.touch(GB)
        tick()
        return Generation(torch.full((1,), float(request.seed)) if pipeline else torch.zeros(1))


# Strategies without a LoRA, so that no adapter is needed.
PLAIN = [Strategy(name, ()) for name in ("plain_a", "plain_b")]
SMALL = [Strategy(name, (QUANTIZE,)) for name in ("small_a", "small_b")]
AWAY = Strategy("away", (Step(StepKind.OFFLOAD, card=8 * GB),))


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def backend(card: Card) -> Pretend:
    return Pretend(card)


@pytest.fixture
def bench(card: Card, backend: Pretend) -> Bench:
    strategies = Strategies([*PLAIN, *SMALL, AWAY])
    shop = Workshop(CARD, backend, strategies, Choices(), Ledger(card), Stopwatch(), lambda _: None)
    return Bench(shop, Synthetic("full"))


def resident(bench: Bench) -> set[str]:
    return {arm.name for arm in bench.arms.values() if arm.pipeline is not None}


def test_what_fits_stays(bench: Bench, backend: Pretend) -> None:
    for name in ("small_a", "plain_a", "small_a"):
        bench.arm(name)
    assert resident(bench) == {"small_a", "plain_a"}
    assert len(backend.built) == 2


def test_the_least_recently_used_makes_room(bench: Bench) -> None:
    for name in ("small_a", "plain_a", "small_a", "plain_b"):
        bench.arm(name)
    assert resident(bench) == {"small_a", "plain_b"}


def test_an_arm_knows_its_own_memory_only(bench: Bench) -> None:
    bench.arm("plain_a")
    bench.generate("small_a", Request())
    arm = bench.arms["small_a"]
    assert arm.setup_peak.needed == 39 * GB + GB // 2
    assert arm.resident == 19 * GB + GB // 2
    assert arm.runtime_peak.needed == 20 * GB + GB // 2


def test_what_other_processes_hold_is_no_room(bench: Bench, card: Card) -> None:
    bench.arm("small_a")
    card.neighbours = 30 * GB
    bench.arm("plain_a")
    assert resident(bench) == {"plain_a"}


def test_two_that_fit_are_together_whatever_their_order(bench: Bench) -> None:
    assert bench.together(("plain_a", "small_a"))
    assert bench.together(("small_b", "plain_b"))
    assert {"small_b", "plain_b"} <= resident(bench)


def test_two_that_do_not_fit_are_not(bench: Bench) -> None:
    for name in ("plain_a", "plain_b"):
        bench.generate(name, Request())
    assert not bench.together(("plain_a", "plain_b"))


def test_offloading_has_the_device_for_itself(bench: Bench) -> None:
    bench.arm("small_a")
    bench.arm("away")
    assert resident(bench) == {"away"}
    assert not bench.together(("away", "small_a"))


def test_an_output_is_generated_once(bench: Bench, backend: Pretend) -> None:
    first = bench.output("plain_a", Request(seed=3))
    bench.arm("away")
    assert bench.output("plain_a", Request(seed=3)) is first
    assert float(first.latents) == 3
    assert len(backend.built) == 2


def test_a_step_without_effect_is_an_error_at_once_the_second_time(bench: Bench, backend: Pretend) -> None:
    backend.idle = True
    line = (
        "strategy small_a, step 1 (quantize): changed none of 1 layers; a step without effect is an error: check "
        "what the model and the steps before it left to do"
    )
    for _ in range(2):
        with pytest.raises(LoraperfError) as caught:
            bench.arm("small_a")
        assert str(caught.value) == line
    assert len(backend.built) == 1
    assert bench.shop.ledger.resident == {}


def test_out_of_memory_is_one_line(bench: Bench, backend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More words")

    monkeypatch.setattr(backend, "build", full)
    with pytest.raises(
        LoraperfError, match=r"^strategy plain_a: out of memory while it was built: CUDA out of memory$"
    ):
        bench.arm("plain_a")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), StrategyError("it cannot be done")]
)
def test_a_kept_error_holds_no_half_built_pipeline(
    bench: Bench, backend: Pretend, card: Card, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def half(*_: object, **__: object) -> None:
        begun = Pipeline(card, 30 * GB)
        assert card.level() == 30 * GB
        try:
            raise error
        finally:
            begun.card.touch()

    monkeypatch.setattr(backend, "build", half)
    with pytest.raises(LoraperfError) as caught:
        bench.arm("plain_a")
    assert caught.value.__traceback__ is not None
    assert card.level() == 0


def test_an_unknown_strategy(bench: Bench) -> None:
    with pytest.raises(StrategyError, match="unknown strategy 'plain_c'; did you mean plain_"):
        bench.arm("plain_c")


def test_closing_gives_everything_back(bench: Bench, card: Card) -> None:
    bench.arm("plain_a")
    bench.close()
    assert card.level() == 0
