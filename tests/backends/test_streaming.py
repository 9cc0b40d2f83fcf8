"""Streaming on DiffSynth's real pipeline, tiny but six blocks deep, on the CPU: bits stay what they are."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Iterator
from threading import Event, Timer
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from pytest_loraperf.backends import quantization, streaming
from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.pipelines import qwen_image
from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.backends.streaming import Offloaded, offloaded, stream_blocks
from pytest_loraperf.backends.streaming import pipeline as streaming_pipeline
from pytest_loraperf.backends.streaming.stacks import split, stacks_of
from pytest_loraperf.backends.streaming.stream import SLOTS
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.backends.synthetic_sizes import TINY
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu import pinned
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.pinned import HostMemory, host_memories
from pytest_loraperf.options import Settings
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import ATTACH, FUSE, QUANTIZE, Step, StepKind, Strategies, Strategy, offload

GB = 2**30
CPU = Device("cpu", "CPU", total=24 * GB)
REQUEST = Request(steps=2, height=64, width=64)
LAYERS = 6
OWN = [
    Strategy("resident", ()),
    Strategy("streamed", (offload("1GB"),)),
    Strategy("attached_streamed", (ATTACH, offload("1GB"))),
    Strategy("computed", (FUSE, Step(StepKind.QUANTIZE, "fp8_compute"))),
    Strategy("computed_streamed", (FUSE, Step(StepKind.QUANTIZE, "fp8_compute"), offload("1GB"))),
    Strategy("offload_first", (offload("1GB"), FUSE, QUANTIZE)),
    Strategy("attached_last", (QUANTIZE, offload("1GB"), ATTACH)),
]


@pytest.fixture(scope="module", autouse=True)
def deep() -> Iterator[None]:
    """Six blocks in the tiny DiT, so that there is something to stream."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(f"{qwen_image.__name__}.TINY", dataclasses.replace(TINY, layers=LAYERS))
        yield


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", device="cpu"), Strategies(OWN))
    yield session
    session.close()


@pytest.fixture(scope="module")
def bench(session: Session) -> Bench:
    return session.bench()


@pytest.fixture(scope="module")
def expected() -> Any:
    return generated(tiny())


def tiny() -> Any:
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")


def generated(pipe: Any, request: Request = REQUEST) -> Any:
    return DiffSynth(CPU).generate(pipe, request)


def state_of(pipe: Any) -> Offloaded:
    state = offloaded(pipe)
    assert state is not None
    return state


def kept(pipe: Any) -> int:
    return sum(block.kept for block in state_of(pipe).stream.blocks)


def block_size(pipe: Any) -> int:
    return state_of(pipe).stream.stacks[0][0].packed.size


def limit_for(blocks: int) -> int:
    """The card on which so many blocks stay beside the slots."""
    pipe = tiny()
    stream_blocks(pipe, GB)
    rest = sum(t.numel() * t.element_size() for t in split(pipe.dit, stacks_of(pipe.dit))[1])
    return rest + (blocks + SLOTS) * block_size(pipe)


class TestOutputs:
    @pytest.mark.parametrize("blocks", [0, 1, 3, 5])
    def test_are_bit_for_bit_the_same_on_any_card(self, expected: Any, blocks: int) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(blocks))
        for _ in range(2):
            found = generated(pipe)
            assert torch.equal(found.latents, expected.latents)
            assert found.image.tobytes() == expected.image.tobytes()
        assert kept(pipe) == blocks

    @pytest.mark.parametrize(
        ("strategy", "resident"),
        [
            ("streamed", "resident"),
            ("attached_streamed", "standard_lora"),
            ("low_vram", "lora_then_quantize"),
            ("low_vram_optimized", "fused_then_quantize"),
            ("computed_streamed", "computed"),
            ("offload_first", "fused_then_quantize"),
            ("attached_last", "quantize_then_lora"),
        ],
    )
    def test_and_gains_are_those_of_resident_weights(
        self, session: Session, bench: Bench, strategy: str, resident: str
    ) -> None:
        request = session.request()
        found, wanted = (bench.generate(name, request) for name in (strategy, resident))
        assert torch.equal(found.latents, wanted.latents)
        assert found.image is not None
        assert wanted.image is not None
        assert found.image.tobytes() == wanted.image.tobytes()
        assert bench.arm(strategy).gains == bench.arm(resident).gains

    def test_are_right_with_torchaos_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchao.quantization import quant_api

        monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _granularity: None)
        pipe, device = tiny(), Device("cpu", "a CPU that says it has fp8 products", capability=(8, 9))
        quantization.quantize(pipe, pipe.dit, "torchao_fp8_w8a8", device)
        wanted = generated(pipe).latents
        stream_blocks(pipe, limit_for(0))
        assert torch.equal(generated(pipe).latents, wanted)
        assert state_of(pipe).stream.moved > LAYERS * block_size(pipe)

    def test_are_right_for_other_sizes_and_batches_of_steps(self) -> None:
        streamed, plain = tiny(), tiny()
        stream_blocks(streamed, limit_for(2))
        for changes in ({"height": 96}, {"steps": 3}, {"cfg": 4.0}, {"height": 128, "width": 128}, {"height": 32}):
            request = REQUEST.with_changes(**changes)
            assert torch.equal(generated(streamed, request).latents, generated(plain, request).latents)

    def test_a_wrong_byte_in_host_memory_is_seen(self, expected: Any) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(0))
        state_of(pipe).stream.stacks[0][3].packed.host[1000:2000] = 77
        assert not torch.equal(generated(pipe).latents, expected.latents)


class TestBlocks:
    def test_come_once_a_pass_unless_they_stay(self) -> None:
        pipe = tiny()
        moved = {}
        for blocks in (0, 2, 3):
            stream_blocks(pipe, limit_for(blocks))
            pipe.load_models_to_device = lambda _names: None  # the other models' turns move blocks as well
            stream = state_of(pipe).stream
            main = {block.packed.host.data_ptr() for block in stream.stacks[0]}
            loads: list[int] = []
            load = stream.copies.load

            def listened(source: Any, target: Any, after: Any, load: Any = load, loads: Any = loads) -> Any:
                loads.append(source.data_ptr())
                return load(source, target, after)

            stream.copies.load = listened  # type: ignore[method-assign]  # to listen
            generated(pipe)
            loads.clear()
            generated(pipe)
            moved[blocks] = sum(each in main for each in loads)
        # Two passes; the other models' blocks took the slots before, so that as many come once more. The last of
        # those that do not stay are in the slots all the time, once they are no more than these.
        assert moved == {0: 2 * LAYERS + SLOTS, 2: 2 * (LAYERS - 2) + SLOTS, 3: SLOTS}

    def test_and_tensors_stay_the_same_objects(self) -> None:
        pipe = tiny()
        before = dict(pipe.named_parameters())
        stream_blocks(pipe, limit_for(1))
        generated(pipe)
        assert all(parameter is before[name] for name, parameter in pipe.named_parameters())

    def test_are_counted_and_diffsynth_is_told_to_keep_out(self) -> None:
        pipe = tiny()
        effect = stream_blocks(pipe, GB)
        stacked = sum(
            len(stack.blocks) for part in (pipe.dit, pipe.vae, pipe.text_encoder) for stack in stacks_of(part)
        )
        assert (effect.layers, effect.total, effect.note) == (stacked, stacked, "")
        assert stacked > LAYERS
        assert pipe.vram_management_enabled is False

    def test_of_a_second_card_replace_the_first(self, expected: Any) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(0))
        generated(pipe)
        hooks = [len(block._forward_pre_hooks) for block in pipe.dit.transformer_blocks]
        stream_blocks(pipe, limit_for(4))
        assert [len(block._forward_pre_hooks) for block in pipe.dit.transformer_blocks] == hooks
        assert torch.equal(generated(pipe).latents, expected.latents)
        assert kept(pipe) == 4

    def test_that_are_undone_are_plain_weights_again(self, expected: Any) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(2))
        generated(pipe)
        state_of(pipe).undo()
        assert offloaded(pipe) is None
        assert "load_models_to_device" not in vars(pipe)
        assert not any(block._forward_pre_hooks or block._forward_hooks for block in pipe.dit.transformer_blocks)
        assert torch.equal(generated(pipe).latents, expected.latents)

    def test_are_freed_with_the_pipeline(self) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(2))
        generated(pipe)
        memory = weakref.ref(state_of(pipe).stream.blocks[0].packed.host.untyped_storage())
        del pipe
        gc.collect()
        assert memory() is None

    def test_of_a_parked_pipeline_come_back(self, expected: Any) -> None:
        pipe, backend = tiny(), DiffSynth(CPU)
        stream_blocks(pipe, limit_for(2))
        generated(pipe)
        parked = backend.park(pipe)
        assert state_of(pipe).stream._slots == []
        backend.unpark(pipe, parked)
        for _ in range(2):
            assert torch.equal(generated(pipe).latents, expected.latents)


class TestOtherModels:
    def test_are_there_while_the_pipeline_says_that_they_are_in_use(self) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(3))
        generated(pipe)
        state = state_of(pipe)
        assert set(state.visitors) == {"text_encoder", "vae"}
        assert [visitor._bytes for visitor in state.visitors.values()] == [None, None]
        pipe.load_models_to_device(["vae"])
        assert [name for name, visitor in state.visitors.items() if visitor._bytes is not None] == ["vae"]
        # And the DiT's blocks make room for what the VAE computes.
        assert not any(block.kept and block.views for block in state.stream.blocks)
        pipe.load_models_to_device(["dit"])
        assert [visitor._bytes for visitor in state.visitors.values()] == [None, None]


class TestStacks:
    def test_are_the_lists_of_like_modules(self) -> None:
        pipe = tiny()
        (stack,) = stacks_of(pipe.dit)
        assert [name for name, _ in stack.blocks] == [f"transformer_blocks.{i}" for i in range(LAYERS)]

    def test_are_not_inside_of_each_other_and_hold_weights_of_one_class(self) -> None:
        def block() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]))

        model = torch.nn.Module()
        model.outer = torch.nn.ModuleList([block(), block()])
        model.mixed = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)])
        model.empty = torch.nn.ModuleList([torch.nn.SiLU(), torch.nn.SiLU()])
        model.single = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
        assert [[name for name, _ in stack.blocks] for stack in stacks_of(model)] == [["outer.0", "outer.1"]]

    def test_leave_what_is_shared_to_the_rest(self) -> None:
        model = torch.nn.Module()
        model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
        model.head = torch.nn.Linear(2, 2)
        model.layers[1].weight = model.layers[0].weight
        model.layers[2].weight = model.head.weight
        blocks, rest = split(model, stacks_of(model))
        assert [len(tensors) for tensors in blocks] == [1, 1, 1]
        assert {id(tensor) for tensor in rest} == {
            id(tensor) for tensor in (model.layers[0].weight, model.head.weight, model.head.bias)
        }

    def test_a_model_without_them_is_refused(self) -> None:
        pipe = tiny()
        pipe.dit.transformer_blocks = torch.nn.Sequential(*pipe.dit.transformer_blocks)
        with pytest.raises(StrategyError) as caught:
            stream_blocks(pipe, GB)
        assert str(caught.value).startswith("offload[stream]: QwenImageDiT is no stack of blocks: 0 B of its ")
        assert str(caught.value).endswith(
            " lie in lists of like modules, and more than half must; use offload[diffsynth]"
        )

    def test_a_card_without_room_for_a_block_is_refused(self) -> None:
        fits = limit_for(1 - SLOTS)
        stream_blocks(tiny(), fits)
        with pytest.raises(StrategyError) as caught:
            stream_blocks(tiny(), fits - 1)
        assert str(caught.value) == (
            "offload[stream]: a limit of 375 KB is too small: 375 KB are needed for a block of 294 KB and what "
            "always stays, before anything is computed; raise --loraperf-offload-limit or --gpu-budget"
        )

    def test_and_what_was_offloaded_for_another_stays_so(self, expected: Any) -> None:
        pipe = tiny()
        stream_blocks(pipe, limit_for(2))
        before = offloaded(pipe)
        with pytest.raises(StrategyError, match="is too small"):
            stream_blocks(pipe, 1000)
        assert offloaded(pipe) is before
        assert torch.equal(generated(pipe).latents, expected.latents)


class TestPinning:
    """By memory that says that it is pinned: there is no CUDA here."""

    CUDA = torch.device("cuda:0")

    @pytest.fixture
    def pinnable(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes that were pinned, by a runtime that refuses more than 1000 bytes."""
        done: list[int] = []

        class Pretended(HostMemory):
            def _pin(self) -> None:
                size = self.bytes.numel()
                if size > 1000:
                    raise RuntimeError(f"{size} bytes of host memory cannot be pinned: CUDA error 2")
                done.append(size)

        monkeypatch.setattr(pinned, "HostMemory", Pretended)
        monkeypatch.setattr(pinned, "spare_memory", lambda: 100 * GB)
        monkeypatch.setattr(torch.cuda, "device", lambda _device: contextlib.nullcontext())
        return done

    def test_is_of_each_block(self, pinnable: list[int]) -> None:
        found = list(host_memories([10, 20, 1000], self.CUDA))
        assert [(memory.bytes.numel(), memory.pinned, memory.why_not) for memory in found] == [
            (10, True, ""),
            (20, True, ""),
            (1000, True, ""),
        ]
        assert sorted(pinnable) == [10, 20, 1000]

    def test_that_fails_leaves_plain_memory_and_says_why(self, pinnable: list[int]) -> None:
        found = list(host_memories([10, 1001], self.CUDA))
        assert [memory.pinned for memory in found] == [True, False]
        assert found[1].why_not == "1001 bytes of host memory cannot be pinned: CUDA error 2"
        assert found[1].bytes.numel() == 1001
        assert pinnable == [10]

    @pytest.mark.parametrize(("spare", "pins"), [(0, True), (2 * GB + 30, True), (2 * GB + 29, False)])
    def test_leaves_the_host_some_memory(
        self, pinnable: list[int], monkeypatch: pytest.MonkeyPatch, spare: int, pins: bool
    ) -> None:
        monkeypatch.setattr(pinned, "spare_memory", lambda: spare)
        found = list(host_memories([10, 20], self.CUDA))
        assert [memory.pinned for memory in found] == [pins, pins]
        assert sorted(pinnable) == ([10, 20] if pins else [])
        if not pins:
            assert found[0].why_not == "0.0 GB to pin, 2.0 GB of host memory available"

    def test_is_not_done_for_those_that_nobody_waits_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        begun, go_on = Event(), Event()

        def slowly(size: int, *_: Any, **__: Any) -> Any:
            made.append(size)
            if size > 0:
                begun.set()
                go_on.wait(10)
            return pinned.HostMemory(1, pinned=False)

        monkeypatch.setattr(pinned, "_host_memory", slowly)
        memories = host_memories([0, *range(1, 100)], torch.device("cpu"))
        next(memories)
        begun.wait(10)
        Timer(0.2, go_on.set).start()
        memories.close()  # type: ignore[attr-defined]  # it is a generator
        assert len(made) < 50

    def test_is_not_asked_for_on_the_cpu(self, pinnable: list[int]) -> None:
        assert [memory.pinned for memory in host_memories([10], torch.device("cpu"))] == [False]
        assert pinnable == []

    def test_is_not_done_where_it_is_not_to_be(self, pinnable: list[int]) -> None:
        found = list(host_memories([10, 20], self.CUDA, pin=False))
        assert [(memory.bytes.numel(), memory.pinned, memory.why_not) for memory in found] == [
            (10, False, ""),
            (20, False, ""),
        ]
        assert pinnable == []

    def test_that_failed_is_said_of_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_pinned(sizes: list[int], _device: torch.device) -> Iterator[HostMemory]:
            for size in sizes:
                memory = HostMemory(size, pinned=False)
                memory.why_not = "no room"
                yield memory

        monkeypatch.setattr(streaming_pipeline, "host_memories", none_pinned)
        pipe = tiny()
        effect = stream_blocks(pipe, GB)
        count = effect.layers + 2  # and what of the other two models is no block
        assert (
            effect.note == f"{count} of {count} blocks are in memory that is not pinned, so copied slowly: no room"
        )

    def test_memory_is_used_again_where_a_block_is_in_some_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _self: True)
        asked: list[int] = []

        def listened(sizes: list[int], device: torch.device) -> Iterator[HostMemory]:
            asked.extend(sizes)
            return host_memories(sizes, device)

        monkeypatch.setattr(streaming_pipeline, "host_memories", listened)
        pipe, small = tiny(), limit_for(0)
        asked.clear()
        stream_blocks(pipe, GB)
        first = len(asked)
        homes = [block.packed.host.data_ptr() for block in state_of(pipe).stream.blocks]
        wanted = generated(pipe).latents
        stream_blocks(pipe, small)
        assert [block.packed.host.data_ptr() for block in state_of(pipe).stream.blocks] == homes
        assert len(asked) == first > LAYERS
        assert torch.equal(generated(pipe).latents, wanted)


class TestChoices:
    def cards(self, strategy: Strategy, **choices: Any) -> list[tuple[str | None, int | None]]:
        found = DiffSynth(CPU).recipe(strategy, CPU, Choices(**choices)).strategy
        return [(step.scheme, step.card) for step in found.steps if step.kind is StepKind.OFFLOAD]

    def test_the_default_is_to_stream_for_the_steps_own_card(self) -> None:
        assert self.cards(Strategies()["low_vram"]) == [("stream", 8 * GB)]
        assert self.cards(Strategies()["low_vram_optimized"]) == [("stream", 6 * GB)]

    def test_a_smaller_budget_is_the_card(self) -> None:
        assert self.cards(Strategies()["low_vram"], card=4 * GB) == [("stream", 4 * GB)]
        assert self.cards(Strategies()["low_vram"], card=80 * GB) == [("stream", 8 * GB)]

    def test_a_limit_goes_before_both(self) -> None:
        assert self.cards(Strategies()["low_vram"], card=4 * GB, offload_limit=12 * GB) == [("stream", 12 * GB)]

    def test_a_step_without_a_card_is_for_this_one(self) -> None:
        assert self.cards(Strategy("mine", (Step(StepKind.OFFLOAD),))) == [("stream", 24 * GB)]

    def test_a_scheme_is_for_steps_that_name_none(self) -> None:
        mine = Strategy("mine", (offload("8GB"), offload("4GB", "stream")))
        assert self.cards(mine, offload="diffsynth") == [("diffsynth", 8 * GB), ("stream", 4 * GB)]

    def test_an_unknown_scheme_is_refused(self) -> None:
        with pytest.raises(StrategyError) as caught:
            self.cards(Strategy("mine", (offload("8GB", "disk"),)))
        assert str(caught.value) == "offload scheme 'disk': allowed are stream, diffsynth"


def test_a_layer_alone_is_called_with_its_weights(expected: Any) -> None:
    pipe = tiny()
    stream_blocks(pipe, limit_for(0))
    x = torch.randn(2, 64).to(torch.bfloat16)
    for index in (4, 0, 5):
        layer = pipe.dit.transformer_blocks[index].attn.to_q
        wanted = tiny().dit.transformer_blocks[index].attn.to_q(x)
        state_of(pipe).reach(layer)
        assert torch.equal(layer(x), wanted)
        assert state_of(pipe).stream.stacks[0][index].views is not None
    assert torch.equal(generated(pipe).latents, expected.latents)


def test_streamed_arms_share_the_device_and_diffsynths_do_not() -> None:
    for scheme, alone in (("stream", False), ("diffsynth", True)):
        session = Session(Settings(model="synthetic:tiny", device="cpu", offload=scheme))
        assert session.bench()._new_arm("low_vram").alone is alone
        session.close()


def test_the_package_is_what_a_user_imports() -> None:
    assert set(streaming.__all__) == {"Offloaded", "lifted", "offloaded", "stream_blocks"}


def test_a_forecast_streams_too() -> None:
    session = Session(Settings(model="synthetic:tiny", forecast=True, offload_limit=GB))
    found = session.forecast("low_vram", session.model(), (), session.request())
    session.close()
    assert found.error is None
    assert found.steps[-1] == "offload[stream]"
    assert found.phases["runtime"] < GB


def test_a_forecast_has_no_room_for_blocks_either() -> None:
    session = Session(Settings(model="synthetic:tiny", forecast=True, offload_limit=GB // 2))
    found = session.forecast("low_vram", session.model(), (), session.request())
    session.close()
    assert str(found.error).startswith(
        "offload[stream]: a limit of 512 MB is too small: 769 MB are needed for a block of"
    )


def test_fake_tensors_have_fake_host_memory() -> None:
    with FakeTensorMode():
        (memory,) = host_memories([2**40], torch.device("cuda:0"))
        assert isinstance(memory.bytes, FakeTensor)
    assert (memory.pinned, memory.bytes.numel(), memory.bytes.device.type) == (True, 2**40, "cpu")
