"""Which pipelines stay on the device, by a backend that only pretends to hold memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.parking import Parked
from pytest_loraperf.backends.protocol import Choices, Generation, Recipe, StepEffect
from pytest_loraperf.bench.bench import Bench, Workshop
from pytest_loraperf.errors import LoraperfError, StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.pinned import HostMemory
from pytest_loraperf.lora import Match
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.measure.ledger import Charge, Ledger
from pytest_loraperf.measure.timeline import MemoryWatch
from pytest_loraperf.measure.timing import NO_TICK, Stopwatch, Tick
from pytest_loraperf.models import ModelSpec, Synthetic
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import COMPILE, QUANTIZE, Step, StepKind, Strategies, Strategy

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

    def reserved_now(self) -> int:
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
        self.size = size
        self.resize(size)

    def resize(self, size: int) -> None:
        self.card.held[id(self)] = size
        self.card.touch()

    def __del__(self) -> None:
        self.card.held.pop(id(self), None)


class Pretend:
    """Pipelines of 39 GB, or 19 once quantized; generating takes 1 GB more. A step takes ``seconds``."""

    name, version = "pretend", "1"

    def __init__(self, card: Card) -> None:
        self.card = card
        self.built: list[str] = []
        self.moved: list[str] = []
        self.idle = False
        self.now = self.seconds = 0.0

    def check(self, pipeline: Pipeline, request: Request) -> None:
        if request.steps < 2:
            raise LoraperfError(f"{request.steps} steps are too few for {pipeline.size}")

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        assert device.is_cuda
        assert choices == Choices()
        return Recipe(strategy)

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> Pipeline:
        self.built.append(str(model) + device.torch_name)
        self.now += self.seconds
        return Pipeline(self.card, 0 if on_cpu else 39 * GB)

    def lora_shapes(self, pipeline: Any) -> dict[str, tuple[int, int]]:
        return {"layer": (4, 4)} if pipeline else {}

    def lora_names(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        raise AssertionError(f"{pipeline} takes no LoRA such as {tensors}")

    def lora_loaded(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> set[str]:
        raise AssertionError(f"{pipeline} takes no LoRA such as {tensors}")

    def take_base(self, pipeline: Any, effect: EffectProbe) -> None:
        raise AssertionError(f"{pipeline} takes no LoRA, so {effect} has nothing to measure")

    def effect_gains(self, pipeline: Any, effect: EffectProbe) -> dict[str, float]:
        raise AssertionError(f"{pipeline} takes no LoRA, so {effect} has nothing to measure")

    def lora_targets(self, pipeline: Any) -> list[str]:
        return list(self.lora_shapes(pipeline))

    def apply(self, pipeline: Any, step: Step, adapters: Sequence[Match]) -> StepEffect:
        assert not adapters
        if step.kind is StepKind.QUANTIZE:
            pipeline.size = 19 * GB
            pipeline.resize(19 * GB)
        return StepEffect(0 if self.idle else 1, 1)

    def generate(self, pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
        self.card.touch(GB)
        self.now += self.seconds
        tick()
        return Generation(torch.full((1,), float(request.seed)) if pipeline else torch.zeros(1))

    def park(self, pipeline: Any, kept: Parked | None = None) -> Parked:
        self.moved.append("out")
        pipeline.resize(0)
        return kept or Parked(HostMemory(0, pinned=False), ())

    def unpark(self, pipeline: Any, parked: Parked) -> None:
        assert not parked.berths
        self.moved.append("back")
        pipeline.resize(pipeline.size)


# Strategies without a LoRA, so that no adapter is needed.
PLAIN = [Strategy(name, ()) for name in ("plain_a", "plain_b")]
SMALL = [Strategy(name, (QUANTIZE,)) for name in ("small_a", "small_b")]
AWAY = Strategy("away", (Step(StepKind.OFFLOAD, card=8 * GB),))
COMPILED = Strategy("compiled", (COMPILE,))


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def backend(card: Card) -> Pretend:
    return Pretend(card)


@pytest.fixture
def bench(card: Card, backend: Pretend) -> Bench:
    return make_bench(card, backend, spare=500 * GB)


def make_bench(card: Card, backend: Pretend, spare: int) -> Bench:
    strategies = Strategies([*PLAIN, *SMALL, AWAY, COMPILED])
    watch = Stopwatch(clock=lambda: backend.now)
    shop = Workshop(CARD, backend, strategies, Choices(), Ledger(card), watch, lambda _: None, lambda: spare)
    return Bench(shop, Synthetic("full"))


def resident(bench: Bench) -> set[str]:
    return {arm.name for arm in bench.arms.values() if arm.pipeline is not None}


def test_memory_over_a_generation_is_the_arms_own_and_charged_to_nobody(bench: Bench) -> None:
    for name in ("small_a", "small_b"):
        bench.generate(name, Request())
    charge = Charge()
    with bench.shop.ledger.test_phase(charge, "runtime"):
        timeline = bench.follow("small_b", Request())
    assert [moment.needed for moment in timeline.moments] == [
        19 * GB + GB // 2,
        20 * GB + GB // 2,  # as the step begins, after which nothing more was taken
        19 * GB + GB // 2,
    ]
    assert len(timeline.steps) == 1
    assert bench.arms["small_b"].runtime_peak.needed == 20 * GB + GB // 2
    assert charge.phases == {}


@pytest.mark.parametrize(("name", "calls"), [("compiled", False), ("small_a", True)])
def test_calls_are_not_looked_at_where_they_are_compiled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, calls: bool
) -> None:
    seen: list[bool] = []

    class Watch(MemoryWatch):
        def __init__(self, *more: Any, calls: bool) -> None:
            seen.append(calls)
            super().__init__(*more, calls=calls)

    monkeypatch.setattr("pytest_loraperf.bench.bench.MemoryWatch", Watch)
    bench.follow(name, Request())
    assert seen == [calls]


def test_what_fits_stays(bench: Bench, backend: Pretend) -> None:
    for name in ("small_a", "plain_a", "small_a"):
        bench.arm(name)
    assert resident(bench) == {"small_a", "plain_a"}
    assert len(backend.built) == 2


def test_the_least_recently_used_makes_room(bench: Bench) -> None:
    for name in ("small_a", "plain_a", "small_a", "plain_b"):
        bench.arm(name)
    assert resident(bench) == {"small_a", "plain_b"}


def test_the_pipelines_of_other_models_make_room_first(bench: Bench) -> None:
    other = Bench(bench.shop, Synthetic("full", seed=1))
    bench.arm("small_a")
    other.arm("small_a")
    assert [resident(bench), resident(other)] == [set(), {"small_a"}]  # what it would need was not known
    bench.arm("small_a")
    bench.arm("plain_a")
    assert [resident(bench), resident(other)] == [{"small_a", "plain_a"}, {"small_a"}]
    other.arm("plain_a")
    assert [resident(bench), resident(other)] == [set(), {"small_a", "plain_a"}]
    bench.arm("away")
    assert [resident(bench), resident(other)] == [{"away"}, set()]


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


def test_an_arm_that_is_released_is_gone_and_known(bench: Bench, backend: Pretend, card: Card) -> None:
    bench.arm("small_a")
    bench.release("small_a")
    bench.release("plain_a")
    assert (resident(bench), card.level()) == (set(), 0)
    assert bench.arms["small_a"].resident == 19 * GB + GB // 2
    bench.arm("small_a")
    assert len(backend.built) == 2


def test_adapter_files_are_read_before_a_model_is_built(bench: Bench, tmp_path: Path) -> None:
    bench.adapters.read()  # none was named
    named = Bench(bench.shop, bench.model, [tmp_path / "no.safetensors"])
    with pytest.raises(LoraperfError, match="cannot be read: No such file"):
        named.adapters.read()


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
    bench.arm("small_a")
    bench.arm("away")
    assert resident(bench) == {"away"}


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


@pytest.mark.parametrize("error", [RuntimeError("once"), KeyboardInterrupt()])
def test_what_is_half_built_is_never_taken_for_the_whole(
    bench: Bench, backend: Pretend, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(*_: object) -> StepEffect:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(backend, "apply", broken)
        with pytest.raises(type(error)):
            bench.arm("small_a")
    assert resident(bench) == set()
    assert bench.shop.ledger.resident == {}
    arm = bench.arm("small_a")
    assert [record.name for record in arm.setup] == ["build", "quantize"]
    assert len(backend.built) == 2


def test_out_of_memory_is_one_line(bench: Bench, backend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More words")

    monkeypatch.setattr(backend, "build", full)
    with pytest.raises(
        LoraperfError,
        match=r"^strategy plain_a: out of memory while it was built: CUDA out of memory. Tried to allocate 2 GiB$",
    ):
        bench.arm("plain_a")


def test_out_of_memory_in_a_generation_is_one_line_and_holds_nothing(
    bench: Bench, backend: Pretend, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        activations = Pipeline(card, 30 * GB)
        raise torch.OutOfMemoryError(f"CUDA out of memory. {activations.size} bytes were there. More words")

    bench.arm("plain_a")
    before = card.level()
    monkeypatch.setattr(backend, "generate", full)
    with pytest.raises(LoraperfError) as caught:
        bench.generate("plain_a", Request())
    assert str(caught.value) == (
        f"strategy plain_a: out of memory while it ran: CUDA out of memory. {30 * GB} bytes were there"
    )
    assert card.level() == before


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


class TestParking:
    """Copying 39 GB out and back takes 1.5 s, and pinning as much the first time 14 s."""

    @pytest.fixture(autouse=True)
    def built_slowly(self, backend: Pretend) -> None:
        backend.seconds = 60.0

    def test_what_is_built_slowly_is_brought_back(self, bench: Bench, backend: Pretend) -> None:
        first = bench.arm("plain_a").pipeline
        for _ in range(2):
            bench.arm("away")
            assert resident(bench) == {"away"}
            assert bench.arm("plain_a").pipeline is first
        assert len(backend.built) == 2
        assert backend.moved == ["out", "back", "out", "back"]

    def test_what_is_built_quickly_is_built_again(self, bench: Bench, backend: Pretend) -> None:
        backend.seconds = 14.0
        for name in ("plain_a", "away", "plain_a"):
            bench.arm(name)
        assert len(backend.built) == 3
        assert backend.moved == []

    def test_host_memory_that_is_pinned_already_counts(self, bench: Bench) -> None:
        for name in ("plain_a", "away", "plain_a"):
            bench.arm(name)
        bench.arms["plain_a"].setup[0].seconds = 2.0
        bench.arm("away")
        assert bench.arms["plain_a"].waiting is not None

    def test_compiling_again_counts(self, bench: Bench, backend: Pretend) -> None:
        backend.seconds = 10.0
        for name in ("compiled", "plain_a"):
            bench.generate(name, Request())
        bench.arm("away")
        assert bench.arms["compiled"].waiting is not None
        assert bench.arms["plain_a"].waiting is None

    @pytest.mark.parametrize(("spare", "parked"), [(82, False), (83, True)])
    def test_host_memory_has_to_hold_it_and_the_next_build(
        self, card: Card, backend: Pretend, spare: int, parked: bool
    ) -> None:
        bench = make_bench(card, backend, spare=spare * GB)
        for name in ("plain_a", "away"):
            bench.arm(name)
        assert (bench.arms["plain_a"].waiting is not None) == parked
        assert card.level() == 0

    def test_its_records_stay(self, bench: Bench) -> None:
        bench.generate("small_a", Request())
        arm = bench.arms["small_a"]
        before = (arm.setup, arm.setup_peak, arm.first_call, arm.first_generation)
        known = repr(before)
        bench.arm("away")
        assert arm.waiting is not None
        bench.arm("small_a")
        assert repr((arm.setup, arm.setup_peak, arm.first_call, arm.first_generation)) == known

    def test_its_memory_is_its_own_again(self, bench: Bench, card: Card) -> None:
        ledger = bench.shop.ledger
        bench.arm("plain_a")
        before = dict(ledger.resident)
        bench.arm("away")
        assert card.level() == 0
        assert sum(ledger.resident.values()) == 0
        charge = Charge()
        with ledger.test_phase(charge, "runtime"):
            bench.arm("plain_a")
        assert charge.phases == {"runtime": 39 * GB + GB // 2}
        assert {holder: size for holder, size in ledger.resident.items() if size} == before
        with ledger.test_phase(other := Charge(), "runtime"):
            card.touch(GB)
        assert other.phases == {"runtime": GB + GB // 2}

    def test_it_needs_less_room_than_to_be_built(self, bench: Bench) -> None:
        for name in ("small_a", "away", "plain_a", "small_b"):
            bench.arm(name)
        bench.arm("small_a")  # its set-up would take 39 GB
        assert resident(bench) >= {"plain_a", "small_b", "small_a"}

    def test_two_of_which_one_is_parked_are_brought_together(self, bench: Bench, backend: Pretend) -> None:
        for name in ("plain_a", "away", "small_a"):
            bench.arm(name)
        assert bench.together(("plain_a", "small_a"))
        assert resident(bench) >= {"plain_a", "small_a"}
        assert len(backend.built) == 3

    def test_what_cannot_be_parked_is_built_again(
        self, bench: Bench, backend: Pretend, card: Card, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise RuntimeError("no host memory")

        monkeypatch.setattr(backend, "park", full)
        for name in ("plain_a", "away", "plain_a"):
            bench.arm(name)
        assert len(backend.built) == 3
        assert resident(bench) == {"away", "plain_a"}
        assert card.level() == sum(bench.shop.ledger.resident.values()) == 39 * GB

    def test_what_does_not_come_back_is_built_again(
        self, bench: Bench, backend: Pretend, card: Card, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            half = Pipeline(card, 20 * GB)
            raise torch.OutOfMemoryError(f"CUDA out of memory after {half.size} bytes")

        monkeypatch.setattr(backend, "unpark", full)
        first = bench.arm("plain_a").setup
        bench.arm("away")
        arm = bench.arm("plain_a")
        assert (arm.waiting, arm.parked) == (None, None)
        assert arm.setup is not first
        assert len(backend.built) == 3
        assert resident(bench) == {"away", "plain_a"}
        assert card.level() == sum(bench.shop.ledger.resident.values()) == 39 * GB

    def test_closing_gives_back_host_memory_too(self, bench: Bench, card: Card) -> None:
        for name in ("plain_a", "away"):
            bench.arm(name)
        memory = weakref.ref(bench.arms["plain_a"].parked.memory)  # type: ignore[union-attr]  # it is parked
        bench.close()
        assert card.level() == 0
        assert memory() is None
        assert all(arm.pipeline is arm.waiting is arm.parked is None for arm in bench.arms.values())


@pytest.mark.parametrize(("name", "kept"), [("plain_a", True), ("compiled", False)])
def test_a_rebuilt_arm_is_warm_after_one_call_unless_it_compiles(bench: Bench, name: str, kept: bool) -> None:
    bench.generate(name, Request())
    bench.arm("away")
    assert bench.arms[name].pipeline is None
    assert (Request().key in bench.arms[name].first_call) == kept
