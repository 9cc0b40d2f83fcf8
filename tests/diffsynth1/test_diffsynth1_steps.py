"""The steps on DiffSynth 1.1's real pipeline, tiny, on the CPU: beside what 1.1 does by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffsynth.lora import GeneralLoRALoader
from diffsynth.vram_management import AutoWrappedLinear
from safetensors.torch import load_file

from pytest_loraperf.backends.diffsynth1 import SCHEMES, DiffSynth1
from pytest_loraperf.backends.quantization import FP8
from pytest_loraperf.backends.synthetic1 import Undecoded, build_synthetic
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError, ModelError, StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.models import Synthetic
from pytest_loraperf.options import Settings
from pytest_loraperf.order.runtime.declared import declared
from pytest_loraperf.registry import BACKENDS, PIPELINES
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import (
    ATTACH,
    COMPILE,
    FUSE,
    SHIPPED,
    Step,
    StepKind,
    Strategies,
    Strategy,
    offload,
)

AS_LOADED = Step(StepKind.QUANTIZE, "fp8_loaded")
OWN = [
    Strategy("computed", (FUSE, Step(StepKind.QUANTIZE, "fp8_compute"))),
    Strategy("computed_and_offloaded", (FUSE, Step(StepKind.QUANTIZE, "fp8_compute"), offload("8GB"))),
    Strategy("attached_and_offloaded", (ATTACH, offload("8GB"))),
    Strategy("as_the_guide_says", (FUSE, AS_LOADED)),
    Strategy("as_loaded", (AS_LOADED,)),
    Strategy("compiled", (FUSE, COMPILE)),
    Strategy("offloaded_compiled", (FUSE, offload("6GB"), COMPILE)),
]
NORM = "transformer_blocks.0.attn.norm_q"


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(backend="diffsynth1", model="synthetic:tiny", device="cpu"), Strategies(OWN))
    yield session
    session.close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lora") / "a.safetensors")


@pytest.fixture(scope="module")
def bench(session: Session, adapter: Path) -> Bench:
    return session.bench(adapters=[adapter])


def tiny(device: str = "cpu") -> Any:
    return build_synthetic("tiny", seed=0, device=device, weights_on=device)


def tiny_in_fp8(device: str) -> Any:
    """What ``ModelConfig(offload_dtype=torch.float8_e4m3fn)`` gives: every parameter of the DiT in fp8."""
    pipe = tiny(device)
    pipe.dit.to(FP8)
    return pipe


def write(path: Path, strength: float = 0.07) -> Path:
    dit = tiny().dit
    names = [name for name in linear_shapes(dit) if name.startswith("transformer_blocks")]
    return write_synthetic_adapter(path, weight_norms(dit, names), rank=8, strength=strength)


def latents(bench: Bench, strategy: str) -> torch.Tensor:
    return bench.generate(strategy, TINY_REQUEST).latents


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_it_says_which_version_it_drives(session: Session) -> None:
    backend = session.shop.backend
    assert (backend.name, backend.version[:4]) == ("diffsynth1", "1.1.")


def test_the_other_line_is_refused_by_name() -> None:
    from pytest_loraperf.backends import load_backend

    line = (
        r"^the backend diffsynth is for diffsynth 2\.x, but 1\.1\.\d+ is installed; use --loraperf-backend=diffsynth1, or, in an "
        r"environment of its own, pip install 'pytest-loraperf\[diffsynth\]'$"
    )
    with pytest.raises(LoraperfError, match=line):
        load_backend(Device("cpu", "CPU"), "diffsynth")


class TestRecords:
    @pytest.mark.parametrize(
        ("strategy", "expected"),
        [
            ("no_lora", {}),
            ("standard_lora", {"attach": (28, 34)}),
            ("quantize_then_lora", {"quantize[fp8_storage]": (34, 34), "attach": (28, 34)}),
            ("lora_then_quantize", {"attach": (28, 34), "quantize[fp8_storage]": (34, 34)}),
            ("fused", {"fuse": (28, 34)}),
            ("fused_then_quantize", {"fuse": (28, 34), "quantize[fp8_storage]": (34, 34)}),
            ("low_vram", {"attach": (28, 34), "quantize[fp8_storage]": (34, 34), "offload[diffsynth]": None}),
            (
                "low_vram_optimized",
                {"fuse": (28, 34), "quantize[fp8_storage]": (34, 34), "offload[diffsynth]": None},
            ),
            ("quantize_then_fuse", {"quantize[fp8_storage]": (34, 34), "fuse": (28, 34)}),
            ("computed", {"fuse": (28, 34), "quantize[fp8_compute]": (34, 34)}),
            ("compiled", {"fuse": (28, 34), "compile": (2, 2)}),
        ],
    )
    def test_name_the_steps_in_order_with_their_layers(
        self, bench: Bench, strategy: str, expected: dict[str, tuple[int, int] | None]
    ) -> None:
        records = bench.arm(strategy).setup
        assert [record.name for record in records] == ["build", *expected]
        for record, layers in zip(records[1:], expected.values(), strict=True):
            found = (record.effect.layers, record.effect.total)
            assert found == layers if layers else found[0] == found[1] > 34


class TestOutputs:
    @pytest.mark.parametrize("strategy", [s.name for s in SHIPPED if not s.mistake] + ["computed"])
    def test_are_near_those_of_the_attached_lora_and_have_its_effect(self, bench: Bench, strategy: str) -> None:
        assert distance(latents(bench, strategy), latents(bench, "standard_lora")) < 0.08
        assert min(bench.arm(strategy).gains.values()) > 0.95

    def test_differ_from_those_without_a_lora(self, bench: Bench) -> None:
        assert distance(latents(bench, "standard_lora"), latents(bench, "no_lora")) > 0.01

    def test_of_a_pipeline_that_decodes_nothing_are_the_same(self, session: Session) -> None:
        backend = session.shop.backend
        pipe = tiny()
        expected = backend.generate(pipe, TINY_REQUEST).latents
        pipe.vae = Undecoded()
        assert backend.apply(pipe, offload("8GB"), ()).layers > 0
        assert torch.equal(backend.generate(pipe, TINY_REQUEST).latents, expected)

    @pytest.mark.parametrize(
        ("offloaded", "resident"),
        [
            ("low_vram", "lora_then_quantize"),
            ("low_vram_optimized", "fused_then_quantize"),
            ("computed_and_offloaded", "computed"),
            ("attached_and_offloaded", "standard_lora"),
        ],
    )
    def test_of_offloaded_weights_are_bit_for_bit_those_of_resident_ones(
        self, bench: Bench, offloaded: str, resident: str
    ) -> None:
        assert torch.equal(latents(bench, offloaded), latents(bench, resident))

    def test_of_1_1_by_hand_are_the_same(self, bench: Bench, adapter: Path, session: Session) -> None:
        attached, fused = tiny(), tiny()
        attached.enable_lora_magic()
        attached.load_lora(attached.dit, str(adapter), hotload=True)
        GeneralLoRALoader(torch_dtype=torch.bfloat16, device="cpu").load(fused.dit, load_file(adapter))
        for pipe, strategy in ((attached, "standard_lora"), (fused, "fused")):
            by_hand = session.shop.backend.generate(pipe, TINY_REQUEST).latents
            assert torch.equal(by_hand.float(), latents(bench, strategy).float())

    def test_one_prompt_is_another(self, bench: Bench) -> None:
        other = bench.generate("fused", TINY_REQUEST.with_changes(prompt="a lamp")).latents
        assert distance(other, latents(bench, "fused")) > 0.001

    def test_have_an_image(self, bench: Bench) -> None:
        image = bench.generate("fused", TINY_REQUEST).image
        assert image is not None
        assert image.size == (TINY_REQUEST.width, TINY_REQUEST.height)


class TestWrappedAgain:
    def test_1_1_by_hand_loses_a_hot_loaded_lora(self, adapter: Path) -> None:
        pipe = tiny()
        pipe.enable_lora_magic()
        pipe.load_lora(pipe.dit, str(adapter), hotload=True)
        assert sum(bool(part.lora_A_weights) for part in wrapped(pipe)) == 28
        pipe.enable_vram_management(auto_offload=False)
        assert sum(bool(part.lora_A_weights) for part in wrapped(pipe)) == 0

    def test_ours_keeps_it(self, bench: Bench) -> None:
        for strategy in ("low_vram", "attached_and_offloaded"):
            assert sum(bool(part.lora_A_weights) for part in wrapped(bench.arm(strategy).pipeline)) == 28

    def test_norms_keep_values_that_fp8_has_not(self, session: Session) -> None:
        def build(device: str) -> Any:
            pipe = tiny(device)
            pipe.dit.get_submodule(NORM).weight.data.fill_(1.0625)
            return pipe

        mine = session.bench(build)
        norm = mine.arm("low_vram_optimized").pipeline.dit.get_submodule(NORM)
        assert type(norm).__name__ == "AutoWrappedModule"
        assert norm.module.weight.dtype is torch.bfloat16
        assert set(norm.module.weight.tolist()) == {1.0625}
        assert torch.equal(latents(mine, "low_vram_optimized"), latents(mine, "fused_then_quantize"))


def wrapped(pipe: Any) -> list[Any]:
    return [part for part in pipe.dit.modules() if isinstance(part, AutoWrappedLinear)]


class TestAsTheGuideSays:
    def test_a_dit_loaded_as_bf16_is_not_quantized_and_that_is_an_error(self, bench: Bench) -> None:
        line = (
            "strategy as_the_guide_says, step 2 (quantize[fp8_loaded]): changed none of 34 layers; a step without "
            "effect is an error: check what the model and the steps before it left to do"
        )
        with pytest.raises(StrategyError) as caught:
            bench.arm("as_the_guide_says")
        assert str(caught.value) == line

    def test_one_loaded_as_fp8_is(self, session: Session) -> None:
        arm = session.bench(tiny_in_fp8).arm("as_loaded")
        assert (arm.setup[-1].effect.layers, arm.setup[-1].effect.total) == (34, 34)
        assert all(part.enable_fp8 for part in wrapped(arm.pipeline))

    def test_and_loses_a_weak_lora_that_is_fused_into_it(self, session: Session, tmp_path: Path) -> None:
        weak = write(tmp_path / "weak.safetensors", strength=0.007)
        lost = session.bench(tiny_in_fp8, adapters=[weak]).arm("as_the_guide_says").gains
        kept = session.bench(adapters=[weak]).arm("fused_then_quantize").gains
        assert sorted(lost.values())[14] < 0.5
        assert min(kept.values()) > 0.8


@pytest.mark.parametrize(
    ("settings", "strategy", "line"),
    [
        (
            {"scheme": "torchao_fp8_w8a8"},
            "fused_then_quantize",
            "quantization scheme 'torchao_fp8_w8a8': allowed are auto, fp8_storage, fp8_compute, fp8_loaded",
        ),
        (
            {"offload": "stream"},
            "low_vram",
            "offload scheme 'stream': allowed are diffsynth",
        ),
    ],
)
def test_what_1_1_has_not_is_refused_for_what_needs_it_only(
    settings: dict[str, Any], strategy: str, line: str
) -> None:
    other = Session(Settings(backend="diffsynth1", model="synthetic:tiny", device="cpu", **settings))
    with pytest.raises(LoraperfError) as caught:
        other.bench().arm(strategy)
    assert str(caught.value) == line
    assert other.bench().arm("fused").pipeline is not None
    other.close()


@pytest.mark.parametrize(
    ("compile_", "strategy", "compiles", "notes"),
    [
        ("auto", "compiled", True, ()),
        ("auto", "fused", False, ()),
        ("on", "fused", True, ()),
        ("off", "compiled", False, ("compiled: compile left out, --loraperf-compile=off",)),
        ("auto", "offloaded_compiled", True, ()),
        ("on", "offloaded_compiled", True, ()),
        ("on", "low_vram", False, ("low_vram: not compiled, its weights move between calls",)),
    ],
)
def test_compile_is_chosen(compile_: str, strategy: str, compiles: bool, notes: tuple[str, ...]) -> None:
    session = Session(
        Settings(backend="diffsynth1", model="synthetic:tiny", device="cpu", compile=compile_), Strategies(OWN)
    )
    shop = session.shop
    recipe = shop.backend.recipe(shop.strategies[strategy], shop.device, shop.choices)
    assert (recipe.strategy.has(StepKind.COMPILE), recipe.notes) == (compiles, notes)
    session.close()


def test_the_full_model_needs_a_card(session: Session) -> None:
    with pytest.raises(ModelError, match=r"^synthetic:full has 20\.43 B parameters and needs a CUDA device"):
        session.shop.backend.build(Synthetic("full"), session.device, on_cpu=False)


def test_other_pipelines_are_those_of_2(session: Session) -> None:
    line = (
        "model synthetic:flux:tiny: the backend diffsynth1 builds synthetic:tiny and synthetic:full, which are "
        "qwen-image; for other pipelines use DiffSynth 2.1 or later, or a build function"
    )
    with pytest.raises(ModelError) as caught:
        session.shop.backend.build(Synthetic("tiny", pipeline="flux"), session.device, on_cpu=False)
    assert str(caught.value) == line


def test_parked_and_back_it_gives_the_same(session: Session) -> None:
    backend = session.shop.backend
    pipe = backend.build(Synthetic("tiny"), session.device, on_cpu=False)
    before = backend.generate(pipe, TINY_REQUEST).latents
    backend.unpark(pipe, backend.park(pipe))
    assert torch.equal(backend.generate(pipe, TINY_REQUEST).latents, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("strategy", [s.name for s in SHIPPED if not s.mistake] + ["computed", "compiled"])
def test_on_cuda(strategy: str) -> None:
    session = Session(Settings(backend="diffsynth1", model="synthetic:tiny"), Strategies(OWN))
    bench = session.bench()
    assert distance(latents(bench, strategy), latents(bench, "standard_lora")) < 0.08
    session.close()


def test_what_the_registry_says_that_it_offers() -> None:
    entry, cpu = BACKENDS["diffsynth1"], Device("cpu", "CPU")
    assert entry.schemes == SCHEMES
    for pipeline in PIPELINES:
        if pipeline not in entry.pipelines:
            with pytest.raises(ModelError, match=pipeline):
                DiffSynth1(cpu).build(Synthetic(pipeline=pipeline), cpu, on_cpu=True)


@pytest.mark.parametrize(
    ("before", "after", "known"),
    [
        ("", "", True),
        (".default", "", True),
        ("transformer_blocks.", "diffusion_model.transformer_blocks.", True),
        ("transformer_blocks.", "transformer.transformer_blocks.", False),
        ("lora_", "lora.", False),
    ],
)
def test_what_its_own_loader_finds_is_what_is_said(adapter: Path, before: str, after: str, known: bool) -> None:
    pipe, backend = tiny(), DiffSynth1(Device("cpu", "CPU"))
    tensors = {key.replace(before, after) if before else key: each for key, each in load_file(adapter).items()}
    weights = {name: pipe.dit.get_submodule(name).weight.clone() for name in linear_shapes(pipe.dit)}
    with declared():  # else the guard fails the test, as it should
        GeneralLoRALoader().load(pipe.dit, tensors)
    changed = {
        name for name, weight in weights.items() if not torch.equal(weight, pipe.dit.get_submodule(name).weight)
    }
    assert backend.lora_loaded(pipe, tensors) == changed
    assert bool(changed) is known
