"""The steps on diffusers' real pipelines, tiny, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.backends.group_offloading import BLOCKS, HOOK, _of_the_card, needed
from pytest_loraperf.backends.group_offloading import LAYERS as LAYER_BY_LAYER
from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError, ModelError, StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import parse_model
from pytest_loraperf.options import Settings
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import COMPILE, FUSE, SHIPPED, Step, StepKind, Strategies, Strategy
from pytest_loraperf.units import format_size

CPU = Device("cpu", "CPU")
MODELS = ("synthetic:tiny", "synthetic:flux:tiny")
LAYERS = {"synthetic:tiny": (28, 32, 34), "synthetic:flux:tiny": (20, 25, 30)}
"""With a LoRA, stored as fp8 (diffusers leaves out what is named norm), and all."""
OWN = Strategy("compiled", (FUSE, COMPILE))
NAMES = [strategy.name for strategy in SHIPPED]
FP8_CPU = Device("cpu", "a CPU that says it has fp8 products", capability=(8, 9))


@pytest.fixture(scope="module", params=MODELS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    session = Session(Settings(model=request.param, device="cpu", backend="diffusers"), Strategies([OWN]))
    yield session.bench()
    session.close()


def latents(bench: Bench, name: str) -> torch.Tensor:
    request = Session(Settings(model=str(bench.model), device="cpu"), Strategies()).request()
    return bench.output(name, request).latents


@pytest.mark.parametrize("name", NAMES)
def test_each_strategy_is_carried_out(bench: Bench, name: str) -> None:
    with_lora, stored, total = LAYERS[str(bench.model)]
    steps = {record.name: record.effect for record in bench.arm(name).setup[1:]}
    for step, effect in steps.items():
        if step in ("attach", "fuse"):
            assert (effect.layers, effect.total) == (with_lora, total)
        elif step == "quantize[fp8_storage]":
            assert (effect.layers, effect.total) == (stored, total)
        else:
            assert step == "offload[group]"
            assert effect.layers == effect.total > 0
            assert effect.note == "the weights are in host memory already: no GPU here"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quantize_then_fuse"])
def test_the_lora_is_in_its_layers(bench: Bench, name: str) -> None:
    gains = bench.arm(name).gains
    assert len(gains) == LAYERS[str(bench.model)][0]
    assert all(0.9 < gain < 1.1 for gain in gains.values())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_near_to_those_of_the_attached_lora(bench: Bench, name: str) -> None:
    reference, other = latents(bench, "standard_lora"), latents(bench, name)
    assert reference.shape == (1, 16, 8, 8)
    assert torch.linalg.vector_norm(other - reference) < 0.1 * torch.linalg.vector_norm(reference)
    assert not torch.equal(other, latents(bench, "no_lora"))


def test_without_its_lora_the_gain_is_zero(bench: Bench) -> None:
    arm, backend = bench.arm("standard_lora"), bench.shop.backend
    effect = bench._effect
    assert effect is not None
    arm.pipeline.disable_lora()
    try:
        gains = backend.effect_gains(arm.pipeline, effect)
    finally:
        arm.pipeline.enable_lora()
    assert len(gains) == LAYERS[str(bench.model)][0]
    assert all(abs(gain) < 0.1 for gain in gains.values())


def test_ticks_as_steps_begin_and_after_the_last(bench: Bench) -> None:
    ticks: list[int] = []
    pipe = bench.arm("no_lora").pipeline
    request = Session(Settings(model=str(bench.model), device="cpu"), Strategies()).request()
    bench.shop.backend.generate(pipe, request, lambda: ticks.append(1))
    assert len(ticks) == request.steps + 1


def test_parking_and_back_changes_nothing(bench: Bench) -> None:
    pipe, backend = bench.arm("lora_then_quantize").pipeline, bench.shop.backend
    before = latents(bench, "lora_then_quantize")
    backend.unpark(pipe, backend.park(pipe))
    request = Session(Settings(model=str(bench.model), device="cpu"), Strategies()).request()
    assert torch.equal(backend.generate(pipe, request).latents.float(), before)


def test_compiles_its_blocks() -> None:
    backend = Diffusers(CPU)
    pipe = backend.build(parse_model("synthetic:tiny"), CPU, on_cpu=False)
    effect = backend.apply(pipe, COMPILE, ())
    assert (effect.layers, effect.total) == (2, 2)


@pytest.fixture
def pipe(bench: Bench) -> Any:
    return bench.shop.backend.build(bench.model, CPU, on_cpu=True)


def test_without_room_for_two_blocks_its_layers_come_one_by_one(bench: Bench, pipe: Any) -> None:
    backend = bench.shop.backend
    request = Session(Settings(model=str(bench.model), device="cpu"), Strategies()).request()
    before = backend.generate(pipe, request).latents
    blocks, layers = (needed(pipe.transformer, level) for level in (BLOCKS, LAYER_BY_LAYER))
    effect = backend.apply(pipe, Step(StepKind.OFFLOAD, "group", blocks - 1), ())
    assert layers < blocks
    size = format_size(blocks)
    assert effect.note == (
        "the weights are in host memory already: no GPU here; "
        f"layers come one by one: 2 blocks need {size} of a card of {format_size(blocks - 1)}"
    )
    linears = [part for part in pipe.transformer.modules() if isinstance(part, torch.nn.Linear)]
    assert all(part._diffusers_hook.get_hook(HOOK) for part in linears)  # type: ignore[operator,union-attr]  # diffusers sets it
    assert torch.equal(backend.generate(pipe, request).latents, before)


def test_with_room_for_two_blocks_they_come_as_blocks(bench: Bench, pipe: Any) -> None:
    effect = bench.shop.backend.apply(pipe, Step(StepKind.OFFLOAD, "group", needed(pipe.transformer, BLOCKS)), ())
    assert effect.note == "the weights are in host memory already: no GPU here"
    blocks = pipe.transformer.transformer_blocks
    assert blocks[0]._diffusers_hook.get_hook(HOOK)
    assert not hasattr(blocks[0].attn.to_q, "_diffusers_hook")


def test_without_room_for_two_layers_it_is_refused(bench: Bench, pipe: Any) -> None:
    name, least = max(
        (
            (name, needed(part, LAYER_BY_LAYER))
            for name, part in pipe.components.items()
            if hasattr(part, "modules")
        ),
        key=lambda pair: pair[1],
    )
    with pytest.raises(StrategyError) as caught:
        bench.shop.backend.apply(pipe, Step(StepKind.OFFLOAD, "group", least - 1), ())
    assert str(caught.value) == (
        f"offload[group]: a limit of {format_size(least - 1)} is too small: {format_size(least)} are needed for "
        f"2 layers of the {name}, before anything is computed; raise --loraperf-offload-limit or --gpu-budget"
    )


def test_a_card_with_room_for_all_is_said_to_stay_empty() -> None:
    main = torch.nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16)
    assert list(_of_the_card(main, BLOCKS, 8 * 2**30, 2**20)) == [
        "a card of 8 GB has room for the whole transformer (2 MB), but diffusers' group offloading keeps no block on it"
    ]
    assert list(_of_the_card(main, BLOCKS, 3 * 2**20 - 1, 2**20)) == []


@pytest.mark.parametrize(
    ("choices", "steps", "message"),
    [
        (
            Choices(scheme="fp8_compute"),
            (Step(StepKind.QUANTIZE),),
            "quantization scheme 'fp8_compute': allowed are auto, fp8_storage, torchao_fp8_w8a8",
        ),
        (Choices(offload="stream"), (Step(StepKind.OFFLOAD),), "offload scheme 'stream': allowed are group"),
        (Choices(), (Step(StepKind.OFFLOAD, "diffsynth"),), "offload scheme 'diffsynth': allowed are group"),
    ],
)
def test_schemes_of_others_are_refused(choices: Choices, steps: Any, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        Diffusers(CPU).recipe(Strategy("own", steps), CPU, choices)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "synthetic:wan:tiny",
            "synthetic:wan:tiny: the backend diffusers builds qwen-image, flux; use one of these",
        ),
        (
            "synthetic:full",
            "synthetic:full has billions of parameters and needs a CUDA device; use synthetic:tiny",
        ),
        (
            lambda device: device,
            "the build function .* returned str; a diffusers pipeline with a transformer is needed",
        ),
        (int, "the build function int raised TypeError: "),
    ],
)
def test_what_cannot_be_built(model: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Diffusers(CPU).build(parse_model(model), CPU, on_cpu=False)


def test_a_folder_without_a_pipeline(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match=r"pretrained:.*: diffusers cannot load it: "):
        Diffusers(CPU).build(parse_model(f"pretrained:{tmp_path}"), CPU, on_cpu=False)


def test_a_size_that_would_be_rounded_is_refused(bench: Bench) -> None:
    bench.check("no_lora", Request(height=32, width=64))
    with pytest.raises(
        LoraperfError, match=r"width=24; (QwenImage|Flux)Pipeline rounds to multiples of 16: write 16 or 32"
    ):
        bench.check("no_lora", Request(height=32, width=24))
    with pytest.raises(LoraperfError, match="width=24"):
        bench.generate("no_lora", Request(height=32, width=24))


def test_one_step_is_refused_where_it_gives_nan(bench: Bench) -> None:
    request = Request(height=32, width=32, steps=1)
    if "flux" in str(bench.model):
        bench.check("no_lora", request)
        assert bench.generate("no_lora", request).latents.isfinite().all()
        return
    for run in (bench.check, bench.generate):
        with pytest.raises(LoraperfError, match="steps=1; QwenImagePipeline's scheduler gives NaN below 2"):
            run("no_lora", request)


def test_an_argument_that_the_pipeline_does_not_take_is_refused(bench: Bench) -> None:
    request = Request(height=32, width=32, extra={"stepz": 3})
    with pytest.raises(LoraperfError, match=r"request: extra: .*Pipeline takes no 'stepz'; it takes prompt, "):
        bench.generate("no_lora", request)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("generator", "'generator' is the request's field seed; give it there"),
        ("output_type", "'output_type' is set by the plugin; leave it out"),
        ("callback_on_step_end", "'callback_on_step_end' is set by the plugin; leave it out"),
    ],
)
def test_an_argument_that_the_request_has_a_field_for_is_refused(bench: Bench, name: str, message: str) -> None:
    for run in (bench.check, bench.generate):
        with pytest.raises(LoraperfError) as caught:
            run("no_lora", Request(height=32, width=32, extra={name: 3}))
        assert str(caught.value) == f"request: extra: {message}"


def test_an_image_to_edit_is_refused(bench: Bench) -> None:
    request = Session(Settings(model="synthetic:tiny", device="cpu"), Strategies()).request()
    for run in (bench.shop.backend.check, bench.shop.backend.generate):
        with pytest.raises(LoraperfError, match="edit_image: the backend diffusers takes none"):
            run(bench.arm("no_lora").pipeline, request.with_changes(edit_image="a.png"))


def test_torchao_scales_each_tensor_by_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchao.quantization import Float8Tensor, quant_api

    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _granularity: None)
    backend = Diffusers(FP8_CPU)
    pipe = backend.build(parse_model("synthetic:tiny"), FP8_CPU, on_cpu=False)
    backend.apply(pipe, Step(StepKind.QUANTIZE, "torchao_fp8_w8a8"), ())
    weights = [layer.weight for layer in pipe.transformer.modules() if isinstance(layer, torch.nn.Linear)]
    assert all(isinstance(weight, Float8Tensor) and weight.scale.numel() == 1 for weight in weights)
    assert len(weights) == 34
