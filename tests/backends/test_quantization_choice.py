"""Which scheme quantize steps get on which device, what is compiled, and how weights look afterwards."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.backends.protocol import Choices, Recipe
from pytest_loraperf.backends.quantization import FP8, check_scheme, quantize, why_no_torchao
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.strategies import (
    ATTACH,
    COMPILE,
    FUSE,
    NO_LORA,
    QUANTIZE,
    SHIPPED,
    Step,
    StepKind,
    Strategies,
    Strategy,
    offload,
)

CPU = Device("cpu", "CPU")
H100 = Device("cuda:0", "H100", 80 * 2**30, (9, 0))
FP8_CPU = Device("cpu", "a CPU that says it has fp8 products", capability=(8, 9))
L4 = Device("cuda:0", "L4", 24 * 2**30, (8, 9))
A100 = Device("cuda:0", "A100", 80 * 2**30, (8, 0))

FASTEST = "fastest here, with compile: fp8 matrix products"
MOVED = "offloaded weights: fp8 halves what is moved"
NO_FUSING = "a LoRA cannot be added to torchao's quantized weights"
MOVES = "not compiled, its weights move between calls"
SWITCHED_OFF = "compile left out, --loraperf-compile=off"
SLOW = "torchao's fp8 is slower than bf16 without compile"


def no_product(device: str) -> str:
    return f"no fp8 matrix product on {device} (compute capability 8.9 and later have it)"


def quantized(scheme: str) -> Step:
    return Step(StepKind.QUANTIZE, scheme=scheme)


def recipe(strategy: str | Strategy, device: Device, **choices: Any) -> Recipe:
    if isinstance(strategy, str):
        strategy = Strategies().find(strategy)
    return DiffSynth(device).recipe(strategy, device, Choices(**choices))


def steps(found: Recipe) -> str:
    return " ".join(map(str, found.strategy.steps))


def refusal(strategy: str | Strategy, device: Device, **choices: str) -> str:
    with pytest.raises(StrategyError) as caught:
        recipe(strategy, device, **choices)
    return str(caught.value)


@pytest.fixture
def without_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)


class TestAuto:
    @pytest.mark.parametrize(
        ("strategy", "device", "expected", "reason"),
        [
            ("fused_then_quantize", H100, "fuse quantize[torchao_fp8_w8a8] compile", FASTEST),
            ("fused_then_quantize", L4, "fuse quantize[torchao_fp8_w8a8] compile", FASTEST),
            ("fused_then_quantize", A100, "fuse quantize[fp8_storage]", no_product("A100")),
            ("fused_then_quantize", CPU, "fuse quantize[fp8_storage]", no_product("CPU")),
            ("lora_then_quantize", H100, "attach quantize[torchao_fp8_w8a8] compile", FASTEST),
            ("quantize_then_lora", H100, "quantize[torchao_fp8_w8a8] attach compile", FASTEST),
            ("quantize_then_fuse", H100, "quantize[fp8_storage] fuse", NO_FUSING),
            ("low_vram", H100, "attach quantize[fp8_storage] offload[stream]", MOVED),
            ("low_vram_optimized", H100, "fuse quantize[fp8_storage] offload[stream]", MOVED),
        ],
    )
    def test_takes_the_fastest_that_can_run(
        self, strategy: str, device: Device, expected: str, reason: str
    ) -> None:
        found = recipe(strategy, device)
        assert steps(found) == expected
        assert f"[{found.scheme}]" in expected
        assert found.scheme_reason == reason
        assert found.notes == ()

    def test_without_compile_takes_no_torchao(self) -> None:
        found = recipe("fused_then_quantize", H100, compile="off")
        assert (steps(found), found.scheme_reason) == ("fuse quantize[fp8_storage]", SLOW)

    @pytest.mark.usefixtures("without_torchao")
    def test_says_that_torchao_is_missing(self) -> None:
        found = recipe("fused_then_quantize", H100)
        assert steps(found) == "fuse quantize[fp8_storage]"
        assert found.scheme_reason is not None
        assert found.scheme_reason.startswith("torchao is not usable (")
        assert found.scheme_reason.endswith("); pip install 'pytest-loraperf[torchao]'")

    @given(
        st.sampled_from([*SHIPPED, NO_LORA]),
        st.sampled_from([CPU, A100, L4, H100]),
        st.sampled_from(["auto", "on", "off"]),
    )
    def test_chooses_what_can_run_and_nothing_else_changes(
        self, strategy: Strategy, device: Device, mode: str
    ) -> None:
        found = recipe(strategy, device, compile=mode)
        left = found.strategy.without_compile()
        assert [step.kind for step in left.steps] == [step.kind for step in strategy.steps]
        assert (left.name, left.mistake) == (strategy.name, strategy.mistake)
        schemes = {step.scheme for step in left.steps if step.kind is StepKind.QUANTIZE}
        assert schemes == ({found.scheme} if strategy.has(StepKind.QUANTIZE) else set())
        for scheme in schemes:
            check_scheme(str(scheme), device)


class TestNothingToQuantize:
    @pytest.mark.parametrize("strategy", ["no_lora", "standard_lora", "fused"])
    def test_has_no_scheme_and_no_reason(self, strategy: str) -> None:
        found = recipe(strategy, H100)
        assert found == Recipe(Strategies().find(strategy))

    def test_does_not_look_at_the_wanted_scheme(self) -> None:
        assert recipe("fused", CPU, scheme="torchao_fp8_w8a8").scheme is None


class TestAskedFor:
    @pytest.mark.parametrize("scheme", ["fp8_storage", "fp8_compute"])
    def test_is_taken(self, scheme: str) -> None:
        found = recipe("fused_then_quantize", H100, scheme=scheme)
        assert (steps(found), found.scheme, found.scheme_reason) == (
            f"fuse quantize[{scheme}]",
            scheme,
            "asked for",
        )

    def test_torchao_is_not_compiled_when_compile_is_off(self) -> None:
        found = recipe("fused_then_quantize", H100, scheme="torchao_fp8_w8a8", compile="off")
        assert steps(found) == "fuse quantize[torchao_fp8_w8a8]"

    def test_that_is_unknown_is_refused(self) -> None:
        assert refusal("fused_then_quantize", H100, scheme="int3") == (
            "quantization scheme 'int3': allowed are auto, fp8_storage, fp8_compute, torchao_fp8_w8a8"
        )

    @pytest.mark.parametrize("device", [CPU, A100])
    def test_torchao_without_fp8_products_is_refused(self, device: Device) -> None:
        assert refusal("fused_then_quantize", device, scheme="torchao_fp8_w8a8") == (
            f"quantization scheme torchao_fp8_w8a8: {device.name} has no fp8 matrix product "
            "(compute capability 8.9 and later); use fp8_storage or auto"
        )

    @pytest.mark.usefixtures("without_torchao")
    def test_torchao_that_is_missing_is_refused(self) -> None:
        line = refusal("fused_then_quantize", H100, scheme="torchao_fp8_w8a8")
        assert line == f"quantization scheme torchao_fp8_w8a8: {why_no_torchao()}; use fp8_storage or auto"
        assert "pip install 'pytest-loraperf[torchao]'" in line


class TestNamedByTheStrategy:
    def test_is_kept_and_told_as_it_is(self) -> None:
        mine = Strategy("mine", (FUSE, quantized("fp8_compute")))
        for choices in ({}, {"scheme": "fp8_storage"}, {"scheme": "torchao_fp8_w8a8"}):
            found = recipe(mine, CPU, **choices)
            assert found == Recipe(mine, "fp8_compute", "named by the strategy")

    def test_torchao_is_compiled(self) -> None:
        found = recipe(Strategy("mine", (FUSE, quantized("torchao_fp8_w8a8"))), H100)
        assert steps(found) == "fuse quantize[torchao_fp8_w8a8] compile"
        assert found.scheme == "torchao_fp8_w8a8"

    def test_that_is_unknown_is_refused_before_anything_is_built(self) -> None:
        assert refusal(Strategy("mine", (quantized("int3"),)), CPU) == (
            "quantization scheme 'int3': allowed are auto, fp8_storage, fp8_compute, torchao_fp8_w8a8"
        )

    def test_that_cannot_run_is_refused_before_anything_is_built(self) -> None:
        line = refusal(Strategy("mine", (quantized("torchao_fp8_w8a8"), ATTACH)), A100)
        assert line.startswith("quantization scheme torchao_fp8_w8a8: A100 has no fp8 matrix product")

    def test_leaves_the_choice_to_steps_that_name_none(self) -> None:
        found = recipe(Strategy("mine", (quantized("fp8_compute"), QUANTIZE)), CPU)
        assert steps(found) == "quantize[fp8_compute] quantize[fp8_storage]"


class TestCompile:
    @pytest.mark.parametrize(
        ("strategy", "expected"),
        [
            ("no_lora", "compile"),
            ("standard_lora", "attach compile"),
            ("fused", "fuse compile"),
            ("quantize_then_fuse", "quantize[fp8_storage] fuse compile"),
        ],
    )
    def test_on_compiles_last(self, strategy: str, expected: str) -> None:
        assert steps(recipe(strategy, H100, compile="on")) == expected

    def test_on_leaves_offloaded_weights_alone_and_says_so(self) -> None:
        found = recipe("low_vram", H100, compile="on")
        assert steps(found) == "attach quantize[fp8_storage] offload[stream]"
        assert found.notes == ("low_vram: not compiled, its weights move between calls",)

    def test_so_does_torchao_that_is_asked_for(self) -> None:
        found = recipe("low_vram", H100, scheme="torchao_fp8_w8a8")
        assert steps(found) == "attach quantize[torchao_fp8_w8a8] offload[stream]"
        assert found.notes == ("low_vram: not compiled, its weights move between calls",)

    def test_auto_keeps_a_step_of_the_users_where_it_is(self) -> None:
        mine = Strategy("mine", (COMPILE, FUSE))
        for mode in ("auto", "on"):
            assert recipe(mine, H100, compile=mode) == Recipe(mine)

    @pytest.mark.parametrize("backend", [DiffSynth, Diffusers])
    @pytest.mark.parametrize(
        ("mode", "its_own", "offloads", "torchao", "compiled", "reason"),
        [
            ("auto", False, False, False, False, None),
            ("auto", False, False, True, True, None),
            ("auto", False, True, False, False, None),
            ("auto", False, True, True, False, MOVES),
            ("auto", True, False, False, True, None),
            ("auto", True, False, True, True, None),
            ("auto", True, True, False, True, None),
            ("auto", True, True, True, True, None),
            ("on", False, False, False, True, None),
            ("on", False, False, True, True, None),
            ("on", False, True, False, False, MOVES),
            ("on", False, True, True, False, MOVES),
            ("on", True, False, False, True, None),
            ("on", True, False, True, True, None),
            ("on", True, True, False, True, None),
            ("on", True, True, True, True, None),
            ("off", False, False, False, False, None),
            ("off", False, False, True, False, SWITCHED_OFF),
            ("off", False, True, False, False, None),
            ("off", False, True, True, False, SWITCHED_OFF),
            ("off", True, False, False, False, SWITCHED_OFF),
            ("off", True, False, True, False, SWITCHED_OFF),
            ("off", True, True, False, False, SWITCHED_OFF),
            ("off", True, True, True, False, SWITCHED_OFF),
        ],
    )
    def test_each_mode_with_and_without_a_step_of_its_own(
        self,
        backend: type[DiffSynth | Diffusers],
        mode: str,
        its_own: bool,
        offloads: bool,
        torchao: bool,
        compiled: bool,
        reason: str | None,
    ) -> None:
        steps = [FUSE]
        steps += [quantized("torchao_fp8_w8a8")] if torchao else []
        steps += [offload("6GB")] if offloads else []
        steps += [COMPILE] if its_own else []
        found = backend(H100).recipe(Strategy("mine", tuple(steps)), H100, Choices(compile=mode))
        assert found.strategy.has(StepKind.COMPILE) == compiled
        assert found.notes == (() if reason is None else (f"mine: {reason}",))


def tiny() -> Any:
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")


def linears(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}


class TestQuantizing:
    @pytest.mark.parametrize(("scheme", "computed_in"), [("fp8_storage", torch.bfloat16), ("fp8_compute", FP8)])
    def test_rounds_every_linear_of_the_module_and_nothing_else(
        self, scheme: str, computed_in: torch.dtype
    ) -> None:
        pipe, untouched = tiny(), tiny()
        effect = quantize(pipe, pipe.dit, scheme, CPU)
        before, after = linears(untouched.dit), linears(pipe.dit)
        assert (effect.layers, effect.total) == (34, 34)
        assert set(after) == set(before)
        for name, linear in after.items():
            assert torch.equal(linear.weight.float(), before[name].weight.to(FP8).float()), name
        assert {linear.computation_dtype for linear in after.values()} == {computed_in}
        assert {linear.enable_fp8 for linear in after.values()} == {scheme == "fp8_compute"}
        kept = {name: tensor for name, tensor in pipe.named_parameters() if tensor.dtype is not FP8}
        assert any("norm" in name for name in kept)
        same = dict(untouched.named_parameters())
        assert [name for name, tensor in kept.items() if not torch.equal(tensor, same[name])] == []

    def test_a_second_time_finds_nothing_left(self) -> None:
        pipe = tiny()
        quantize(pipe, pipe.dit, "fp8_storage", CPU)
        effect = quantize(pipe, pipe.dit, "fp8_storage", CPU)
        assert (effect.layers, effect.total) == (0, 34)

    def test_checks_the_scheme_first(self) -> None:
        pipe = tiny()
        for scheme in ("int3", "torchao_fp8_w8a8"):
            with pytest.raises(StrategyError, match=f"^quantization scheme '?{scheme}"):
                quantize(pipe, pipe.dit, scheme, CPU)
        assert {linear.weight.dtype for linear in linears(pipe.dit).values()} == {torch.bfloat16}

    def test_a_step_without_a_scheme_is_refused(self) -> None:
        with pytest.raises(StrategyError) as caught:
            DiffSynth(CPU).apply(tiny(), QUANTIZE, ())
        assert str(caught.value) == (
            "step quantize: no scheme was chosen; allowed are fp8_storage, fp8_compute, torchao_fp8_w8a8"
        )


class TestTorchao:
    @pytest.fixture(autouse=True)
    def on_any_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let torchao quantize here: it asks for a GPU, though its products run on the CPU as well."""
        from torchao.quantization import quant_api

        monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _granularity: None)

    def test_quantizes_every_linear(self) -> None:
        from torchao.quantization import Float8Tensor

        pipe = tiny()
        effect = quantize(pipe, pipe.dit, "torchao_fp8_w8a8", FP8_CPU)
        assert (effect.layers, effect.total) == (34, 34)
        assert {type(linear.weight) for linear in linears(pipe.dit).values()} == {Float8Tensor}

    def test_keeps_an_attached_lora(self) -> None:
        from diffsynth.core.vram.layers import LoRAHotLoadMixin

        pipe = tiny()
        pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)
        before = {layer.name: layer for layer in pipe.dit.modules() if isinstance(layer, LoRAHotLoadMixin)}
        for layer in before.values():
            layer.lora_A_weights.append(torch.ones(1))
        quantize(pipe, pipe.dit, "torchao_fp8_w8a8", FP8_CPU)
        after = {layer.name: layer for layer in pipe.dit.modules() if isinstance(layer, LoRAHotLoadMixin)}
        assert len(after) == len(before) == 34
        assert all(after[name] is not layer for name, layer in before.items())
        assert all(after[name].lora_A_weights is layer.lora_A_weights for name, layer in before.items())

    def test_leaves_the_process_as_it_is(self) -> None:
        import torch._inductor.config as inductor

        before = inductor.coordinate_descent_tuning, torch.get_float32_matmul_precision()
        pipe = tiny()
        quantize(pipe, pipe.dit, "torchao_fp8_w8a8", FP8_CPU)
        assert (inductor.coordinate_descent_tuning, torch.get_float32_matmul_precision()) == before
        assert before == (False, "highest")


def test_an_offload_step_of_the_users_keeps_its_card() -> None:
    mine = Strategy("mine", (FUSE, QUANTIZE, offload("12GB")))
    assert recipe(mine, H100).strategy.steps[-1].card == 12 * 2**30
