"""The steps on DiffSynth's real pipeline, tiny, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.backends.quantization import FP8
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.bench import Bench
from pytest_loraperf.errors import LoraperfError, StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import COMPILE, FUSE, QUANTIZE, SHIPPED, Step, StepKind, Strategies, Strategy

CPU = Device("cpu", "CPU")
H100 = Device("cuda:0", "H100", 80 * 2**30, (9, 0))
A100 = Device("cuda:0", "A100", 80 * 2**30, (8, 0))
LORA_LAYERS = 28  # 14 in each of two blocks
ALL_LAYERS = 34  # and those around them


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    twice = Strategy("quantized_twice", (QUANTIZE, QUANTIZE))
    session = Session(Settings(model="synthetic:tiny", device="cpu"), Strategies([twice]))
    yield session
    session.close()


@pytest.fixture(scope="module")
def bench(session: Session) -> Bench:
    return session.bench()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    names = [name for name in linear_shapes(dit) if name.startswith("transformer_blocks")]
    return write_synthetic_adapter(
        tmp_path_factory.mktemp("lora") / "a.safetensors", weight_norms(dit, names), rank=8
    )


def by_hand(adapter: Path, **options: Any) -> Any:
    """DiffSynth's own way, without ours."""
    pipe = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
    if options.get("hotload"):
        pipe.enable_lora_hot_loading(pipe.dit)
    pipe.load_lora(pipe.dit, str(adapter), **options)
    return pipe


@pytest.mark.parametrize("strategy", [strategy.name for strategy in SHIPPED])
def test_every_step_is_recorded_with_its_layers(bench: Bench, strategy: str) -> None:
    arm = bench.arm(strategy)
    assert [record.name for record in arm.setup] == ["build", *map(str, arm.recipe.strategy.steps)]
    layers = {StepKind(record.step.kind): record.effect.layers for record in arm.setup if record.step}
    expected = {
        StepKind.ATTACH: LORA_LAYERS,
        StepKind.FUSE: LORA_LAYERS,
        StepKind.QUANTIZE: ALL_LAYERS,
        StepKind.COMPILE: 2,
    }
    for kind, count in layers.items():
        assert count == expected.get(kind, count)
        assert count > 0
    assert all(record.seconds > 0 and record.peak > 0 for record in arm.setup)


def test_the_control_has_no_steps(bench: Bench) -> None:
    assert [record.name for record in bench.arm("no_lora").setup] == ["build"]


def test_quantized_weights_are_fp8_and_smaller(bench: Bench) -> None:
    arm = bench.arm("fused_then_quantize")
    linears = [part for part in arm.pipeline.dit.modules() if isinstance(part, torch.nn.Linear)]
    assert {part.weight.dtype for part in linears} == {FP8}
    assert arm.resident < 0.9 * arm.setup_peak.needed


def test_the_lora_stays_attached_when_quantized_after(bench: Bench) -> None:
    dit = bench.arm("lora_then_quantize").pipeline.dit
    attached = [part for part in dit.modules() if getattr(part, "lora_A_weights", None)]
    assert len(attached) == LORA_LAYERS
    assert {part.weight.dtype for part in attached} == {FP8}
    assert {part.lora_A_weights[0].dtype for part in attached} == {torch.bfloat16}


def test_attached_is_what_diffsynth_attaches(session: Session, adapter: Path) -> None:
    ours = session.bench(adapters=[f"{adapter}:0.5"]).generate("standard_lora", session.request())
    theirs = session.shop.backend.generate(by_hand(adapter, alpha=0.5, hotload=True), session.request())
    torch.testing.assert_close(ours.latents, theirs.latents.float(), rtol=0, atol=0)


def test_fused_is_what_diffsynth_fuses(session: Session, adapter: Path) -> None:
    ours = session.bench(adapters=[f"{adapter}:0.5"]).generate("fused", session.request())
    theirs = session.shop.backend.generate(by_hand(adapter, alpha=0.5, hotload=False), session.request())
    torch.testing.assert_close(ours.latents, theirs.latents.float(), rtol=0, atol=0)


def test_adapters_are_stacked_with_their_scales(session: Session, adapter: Path) -> None:
    base = session.bench(adapters=[adapter]).arm("no_lora").pipeline.dit
    fused = session.bench(adapters=[adapter, f"{adapter}:-0.25"]).arm("fused").pipeline.dit
    name = "transformer_blocks.0.attn.to_q"
    state = load_file(adapter)
    delta = state[f"{name}.lora_B.default.weight"].float() @ state[f"{name}.lora_A.default.weight"].float()
    changed = fused.get_submodule(name).weight.float() - base.get_submodule(name).weight.float()
    share = float((changed * delta).sum() / delta.square().sum())
    assert share == pytest.approx(0.75, abs=0.02)


def test_a_step_that_changes_nothing_is_named(bench: Bench) -> None:
    line = (
        "strategy quantized_twice, step 2 (quantize[[]fp8_storage[]]): changed none of 34 layers; a step without"
    )
    with pytest.raises(
        StrategyError,
        match=line.replace("[[]", r"\[").replace("[]]", r"\]").replace("(", r"\(").replace(")", r"\)"),
    ):
        bench.arm("quantized_twice")


def test_an_adapter_that_matches_nothing_fails_each_strategy_with_both_sides(
    session: Session, tmp_path: Path
) -> None:
    norms = {"other_blocks.0.to_q": (4, 4, 1.0)}
    other = session.bench(adapters=[write_synthetic_adapter(tmp_path / "b.safetensors", norms, rank=2)])
    for name in ("fused", "standard_lora"):
        with pytest.raises(
            LoraperfError, match=r"no layer of the model is matched; the adapter has other_blocks\.0\.to_q"
        ):
            other.arm(name)
    assert other.arm("no_lora").pipeline is not None


@pytest.mark.parametrize(
    ("strategy", "device", "choices", "steps", "reason"),
    [
        ("fused_then_quantize", H100, Choices(), "fuse quantize[torchao_fp8_w8a8] compile", "fastest here"),
        ("fused_then_quantize", A100, Choices(), "fuse quantize[fp8_storage]", "no fp8 matrix product on A100"),
        ("fused_then_quantize", H100, Choices(compile="off"), "fuse quantize[fp8_storage]", "slower than bf16"),
        ("quantize_then_fuse", H100, Choices(), "quantize[fp8_storage] fuse", "cannot be added"),
        ("low_vram_optimized", H100, Choices(), "fuse quantize[fp8_storage] offload", "halves what is moved"),
        ("low_vram_optimized", H100, Choices(compile="on"), "fuse quantize[fp8_storage] offload", "halves"),
        ("fused_then_quantize", A100, Choices(scheme="fp8_compute"), "fuse quantize[fp8_compute]", "asked for"),
        ("fused", H100, Choices(), "fuse", None),
        ("fused", H100, Choices(compile="on"), "fuse compile", None),
        ("no_lora", CPU, Choices(compile="on"), "compile", None),
    ],
)
def test_recipes(strategy: str, device: Device, choices: Choices, steps: str, reason: str | None) -> None:
    recipe = DiffSynth(device).recipe(Strategies().find(strategy), device, choices)
    assert " ".join(map(str, recipe.strategy.steps)) == steps
    assert (recipe.scheme_reason is None) is (reason is None)
    assert (reason or "") in (recipe.scheme_reason or "")


def test_a_compile_step_of_the_users_is_left_out_when_off_and_said() -> None:
    recipe = DiffSynth(CPU).recipe(Strategy("mine", (FUSE, COMPILE)), CPU, Choices(compile="off"))
    assert recipe.strategy.steps == (FUSE,)
    assert recipe.notes == ("mine: compile left out, --loraperf-compile=off",)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("int3", "quantization scheme 'int3': allowed are auto, fp8_storage, fp8_compute, torchao_fp8_w8a8"),
        ("torchao_fp8_w8a8", "quantization scheme torchao_fp8_w8a8: CPU has no fp8 matrix product"),
    ],
)
def test_schemes_that_cannot_run(scheme: str, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        DiffSynth(CPU).recipe(Strategies().find("fused_then_quantize"), CPU, Choices(scheme=scheme))


def test_fp8_computation_runs_on_the_cpu(session: Session) -> None:
    own = Strategy("computed", (FUSE, Step(StepKind.QUANTIZE, scheme="fp8_compute")))
    other = Session(Settings(model="synthetic:tiny", device="cpu"), Strategies([own]))
    assert other.bench().generate("computed", session.request()).latents.isfinite().all()
    other.close()


def test_a_users_function_builds_on_the_cpu_for_offloading(session: Session) -> None:
    asked = []

    def build(device: str) -> Any:
        asked.append(device)
        return build_synthetic("tiny", seed=0, device=device, weights_on=device)

    mine = session.bench(build)
    for name in ("fused", "low_vram_optimized"):
        assert mine.generate(name, session.request(build).with_changes(height=64, width=64)).image is not None
    assert asked == ["cpu", "cpu"]


def test_what_is_no_pipeline_is_refused(session: Session) -> None:
    def build(device: str) -> int:
        return len(device)

    with pytest.raises(LoraperfError, match=r"returned int; a DiffSynth pipeline with a dit is needed"):
        session.bench(build).arm("fused")
