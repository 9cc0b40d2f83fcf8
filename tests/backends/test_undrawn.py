"""Blocks that are drawn when they are offloaded: bit for bit what steps on drawn blocks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from pytest_loraperf.backends import load_backend
from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.streaming import offloaded
from pytest_loraperf.backends.streaming import pipeline as streaming_pipeline
from pytest_loraperf.backends.synthetic import build_for, build_synthetic
from pytest_loraperf.backends.undrawn import Layers, settle_all, undrawn
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.device import resolve_device
from pytest_loraperf.gpu.pinned import HostMemory, host_memories
from pytest_loraperf.gpu.tensors import tensors_of
from pytest_loraperf.lora import (
    AdapterSource,
    Match,
    match_adapter,
    read_adapter,
    weight_norms,
    write_synthetic_adapter,
)
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.models import Synthetic
from pytest_loraperf.registry import PIPELINES, QWEN_IMAGE
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.strategies import ATTACH, FUSE, Step, StepKind

BF16 = torch.bfloat16
CPU = resolve_device("cpu")
STORED, COMPUTED = (Step(StepKind.QUANTIZE, scheme) for scheme in ("fp8_storage", "fp8_compute"))
STREAMED = Step(StepKind.OFFLOAD, "stream", 2**30)
MOVED = Step(StepKind.OFFLOAD, "diffsynth", 2**30)


def drawn(pipeline: str = QWEN_IMAGE) -> Any:
    return build_synthetic("tiny", pipeline=pipeline, device="cpu")


def waiting(pipeline: str = QWEN_IMAGE) -> Any:
    """The same, as it is where it is to be offloaded from a GPU."""
    return build_for(Synthetic("tiny", pipeline=pipeline), "cpu", "cpu", BF16, draw_later=True)


def tensors(pipe: Any) -> list[tuple[str, torch.dtype, tuple[int, ...], bytes]]:
    """All that a pipeline holds: types, strides and bytes."""
    return [
        (name, each.dtype, each.stride(), each.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for name, module in pipe.named_modules()
        for each in tensors_of(module, recurse=False)
        if each.numel()
    ]


def parameters(pipe: Any) -> dict[str, torch.Tensor]:
    return dict(pipe.named_parameters())


@pytest.fixture(scope="module")
def matches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Match, ...]:
    """Two adapters: one for the blocks, one for a layer in a block and one beside them."""
    pipe, folder = drawn(), tmp_path_factory.mktemp("lora")
    backend = DiffSynth(CPU)
    found = []
    for seed, names in enumerate((backend.lora_targets(pipe), ["img_in", "transformer_blocks.1.attn.to_q"])):
        path = write_synthetic_adapter(folder / f"{seed}.safetensors", weight_norms(pipe.dit, names), seed=seed)
        found.append(match_adapter(read_adapter(AdapterSource(path, 0.5 + seed)), backend.lora_shapes(pipe)))
    return tuple(found)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_they_come_to_the_values_of_those_that_did_not_wait(pipeline: str) -> None:
    expected, pipe = parameters(drawn(pipeline)), waiting(pipeline)
    held = undrawn(pipe.dit)
    assert held is not None
    assert len(held.blocks) > 1
    names = {f"dit.{name}" for names in held.blocks.values() for name in names}
    assert names == {name for name, parameter in parameters(pipe).items() if parameter.is_meta}
    settle_all(pipe.dit)
    assert undrawn(pipe.dit) is None
    assert parameters(pipe).keys() == expected.keys()
    assert [name for name, each in parameters(pipe).items() if not torch.equal(each, expected[name])] == []


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (ATTACH,),
        (FUSE,),
        (FUSE, FUSE),
        (STORED,),
        (ATTACH, STORED),
        (STORED, ATTACH),
        (FUSE, STORED),
        (STORED, FUSE),  # the mistake: what is fused is rounded to fp8 by itself
        (FUSE, COMPUTED),
    ],
    ids=lambda steps: "+".join(map(str, steps)) or "none",
)
@pytest.mark.parametrize("last", [STREAMED, MOVED], ids=str)
def test_steps_make_of_them_what_they_make_of_others(
    steps: Sequence[Step], last: Step, matches: tuple[Match, ...]
) -> None:
    backend = DiffSynth(CPU)
    expected, pipe = drawn(), waiting()
    for step in (*steps, last):
        done = backend.apply(pipe, step, matches)
        assert done == backend.apply(expected, step, matches)
    assert undrawn(pipe.dit) is None
    assert tensors(pipe) == tensors(expected)


def test_outputs_are_those_of_others(matches: tuple[Match, ...]) -> None:
    backend, found = DiffSynth(CPU), []
    for pipe in (drawn(), waiting()):
        for step in (FUSE, ATTACH, STORED, STREAMED):
            backend.apply(pipe, step, matches)
        found.append(backend.generate(pipe, TINY_REQUEST).latents)
    assert torch.equal(*found)


def test_what_is_asked_of_host_memory_is_what_is_kept(
    matches: tuple[Match, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, pipe, sizes = DiffSynth(CPU), waiting(), []

    def listened(asked: list[int], device: torch.device) -> Iterator[HostMemory]:
        in_blocks = [each for name, each in pipe.dit.named_parameters() if name.startswith("transformer_blocks.")]
        assert all(each.is_meta for each in in_blocks)  # nothing is drawn yet
        sizes.extend(asked)
        return host_memories(asked, device)

    monkeypatch.setattr(streaming_pipeline, "host_memories", listened)
    for step in (FUSE, STORED, STREAMED):
        backend.apply(pipe, step, matches)
    state = offloaded(pipe)
    assert state is not None
    blocks = [block.packed.size for block in state.stream.stacks[0]]
    assert sizes[: len(blocks)] == blocks
    linears = sum(each.weight.numel() for each in pipe.dit.transformer_blocks[0].modules() if is_linear(each))
    assert linears <= blocks[0] < 1.2 * linears  # a byte for each weight


def is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def test_drawing_that_failed_can_be_done_again(
    matches: tuple[Match, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, expected, pipe = DiffSynth(CPU), drawn(), waiting()
    backend.apply(pipe, FUSE, matches)
    calls: list[int] = []

    def fails_once(values: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return values

    held = undrawn(pipe.dit)
    assert held is not None
    assert held.change("transformer_blocks.0.attn.to_k.weight", fails_once)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _self: True)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        backend.apply(pipe, STREAMED, matches)
    backend.apply(pipe, STREAMED, matches)
    for step in (FUSE, STREAMED):
        backend.apply(expected, step, matches)
    assert tensors(pipe) == tensors(expected)


def test_a_parameter_that_was_replaced_is_not_lost() -> None:
    backend, pipe = DiffSynth(CPU), waiting()
    pipe.dit.transformer_blocks[0].attn.to_q.weight = torch.nn.Parameter(torch.zeros(64, 64, dtype=BF16))
    with pytest.raises(StrategyError) as caught:
        backend.apply(pipe, STREAMED, ())
    assert str(caught.value) == (
        "offload[stream]: transformer_blocks.0.attn.to_q.weight was replaced before it was drawn; replace it later"
    )


def test_a_backend_that_changes_a_step_finds_values() -> None:
    # As one that is made of this one, or has it inside, takes it.
    model, ours = Synthetic("tiny"), load_backend(CPU, "diffsynth")
    assert undrawn(ours.build(model, CPU, on_cpu=True).dit) is not None
    for backend, on_cpu in ((DiffSynth(CPU), True), (ours, False)):
        pipe = backend.build(model, CPU, on_cpu=on_cpu)
        assert undrawn(pipe.dit) is None
        assert tensors(pipe) == tensors(drawn())


def test_the_mistake_is_told_apart(matches: tuple[Match, ...]) -> None:
    backend, found = DiffSynth(CPU), []
    for steps in ((FUSE, STORED), (STORED, FUSE)):
        pipe = waiting()
        for step in (*steps, STREAMED):
            backend.apply(pipe, step, matches)
        found.append(backend.generate(pipe, TINY_REQUEST).latents)
    assert not torch.equal(*found)


def test_nothing_is_drawn_by_steps_before_the_offload(matches: tuple[Match, ...]) -> None:
    backend, pipe = DiffSynth(CPU), waiting()
    for step in (FUSE, STORED):
        assert backend.apply(pipe, step, matches).layers > 0
    assert all(each.is_meta for name, each in parameters(pipe).items() if "transformer_blocks" in name)


def test_layers_can_be_looked_at_before(matches: tuple[Match, ...]) -> None:
    backend, expected, pipe = DiffSynth(CPU), drawn(), waiting()
    names = backend.lora_targets(pipe)
    assert weight_norms(Layers(pipe.dit), names) == weight_norms(expected.dit, names)
    probes = [EffectProbe(matches) for _ in range(2)]
    for probe, each in zip(probes, (pipe, expected), strict=True):
        backend.take_base(each, probe)
        for step in (FUSE, STREAMED):
            backend.apply(each, step, matches)
    assert backend.effect_gains(pipe, probes[0]) == backend.effect_gains(expected, probes[1])
    assert Layers(pipe.dit).get_submodule(names[0]) is pipe.dit.get_submodule(names[0])


def test_a_block_that_is_in_no_stack_is_drawn_too(matches: tuple[Match, ...]) -> None:
    backend, expected = DiffSynth(CPU), drawn()
    pipe = describe(QWEN_IMAGE).assemble("tiny", device="cpu", dtype=BF16)
    generator = torch.Generator().manual_seed(0)
    for module in pipe.children():
        later = ["img_in", "transformer_blocks.0"] if module is pipe.dit else ()
        fill(module, generator, weights_on="cpu", dtype=BF16, later=later)
        module.to(BF16)
    pipe.eval()
    for each in (pipe, expected):
        for step in (FUSE, STREAMED):
            backend.apply(each, step, matches)
    assert tensors(pipe) == tensors(expected)
