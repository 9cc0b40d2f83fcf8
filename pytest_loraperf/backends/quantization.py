"""Quantization schemes: which one a backend takes, and how DiffSynth 2.x applies it to a loaded module."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pytest_loraperf.backends.protocol import Choices, StepEffect
from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.backends.undrawn import settle_all, undrawn
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.strategies import StepKind, Strategy

if TYPE_CHECKING:
    from diffsynth.diffusion.base_pipeline import BasePipeline

FP8 = torch.float8_e4m3fn
STORAGE = "fp8_storage"
COMPUTE = "fp8_compute"
TORCHAO = "torchao_fp8_w8a8"
SCHEMES = (STORAGE, COMPUTE, TORCHAO)
"""fp8 weights and bf16 compute; DiffSynth's own fp8 computation; torchao's fp8 weights and activations."""


def choose_scheme(
    strategy: Strategy, device: Device, choices: Choices, allowed: Collection[str] = SCHEMES
) -> tuple[str, str]:
    """Return the scheme of a strategy's quantize steps, and why; what a step names itself is kept.

    ``allowed`` are the backend's schemes.

    Raises:
        StrategyError: the wanted scheme is unknown, or cannot run on this device.
    """
    named = [step.scheme for step in strategy.steps if step.kind is StepKind.QUANTIZE]
    for scheme in filter(None, named):
        check_scheme(scheme, device, allowed)
    if all(named):
        return str(named[-1]), "named by the strategy"
    if choices.scheme != "auto":
        check_scheme(choices.scheme, device, allowed)
        return choices.scheme, "asked for"
    why_not = _why_not_torchao(strategy, device, choices)
    if why_not:
        return STORAGE, why_not
    return TORCHAO, "fastest here, with compile: fp8 matrix products"


def _why_not_torchao(strategy: Strategy, device: Device, choices: Choices) -> str | None:
    if strategy.has(StepKind.OFFLOAD):
        return "offloaded weights: fp8 halves what is moved"
    if strategy.fuses_after_quantizing:
        return "a LoRA cannot be added to torchao's quantized weights"
    if not device.has_fp8_matmul:
        return f"no fp8 matrix product on {device.name} (compute capability 8.9 and later have it)"
    if choices.compile == "off":
        return "torchao's fp8 is slower than bf16 without compile"
    return why_no_torchao()


def check_scheme(scheme: str, device: Device, allowed: Collection[str] = SCHEMES) -> None:
    """Refuse a scheme that is unknown or cannot run here.

    Raises:
        StrategyError: the message says what is allowed or missing.
    """
    if scheme not in allowed:
        raise StrategyError(f"quantization scheme {scheme!r}: allowed are auto, {', '.join(allowed)}")
    if scheme == TORCHAO:
        missing = why_no_torchao()
        if missing or not device.has_fp8_matmul:
            reason = missing or f"{device.name} has no fp8 matrix product (compute capability 8.9 and later)"
            raise StrategyError(f"quantization scheme {scheme}: {reason}; use {STORAGE} or auto")


def why_no_torchao() -> str | None:
    """Say what is missing for the torchao scheme, or None."""
    try:
        with quiet():
            import torchao.quantization  # noqa: F401, PLC0415 - an optional package, asked for only here
    except ImportError as error:
        return f"torchao is not usable ({error}); pip install 'pytest-loraperf[torchao]'"
    return None


def quantize(pipe: BasePipeline, module: torch.nn.Module, scheme: str, device: Device) -> StepEffect:
    """Quantize the Linear layers of a module in place; a LoRA attached before stays attached.

    Raises:
        StrategyError: the scheme is unknown or cannot run here.
    """
    check_scheme(scheme, device)
    if scheme == TORCHAO:
        return _quantize_torchao(pipe, module, scheme)
    return _quantize_managed(pipe, module, FP8 if scheme == COMPUTE else pipe.torch_dtype)


def _quantize_managed(pipe: BasePipeline, module: torch.nn.Module, compute: torch.dtype) -> StepEffect:
    """DiffSynth's managed Linears with fp8 weights, cast one by one on the computing device.

    What is not drawn yet is cast when it is.
    """
    from diffsynth.core.vram.layers import AutoWrappedLinear, enable_vram_management  # noqa: PLC0415 - heavy

    config: dict[str, Any] = {"computation_dtype": compute, "computation_device": pipe.device}
    for state in ("offload", "onload", "preparing"):
        config |= {f"{state}_dtype": FP8, f"{state}_device": pipe.device}
    if not getattr(module, "vram_management_enabled", False):
        enable_vram_management(module, {torch.nn.Linear: AutoWrappedLinear}, vram_config=config)
    waiting = undrawn(module)
    total = changed = 0
    for path, linear in module.named_modules():
        if not isinstance(linear, torch.nn.Linear):
            continue
        total += 1
        if isinstance(linear, AutoWrappedLinear) and linear.weight.dtype is not FP8:
            # Wrapping a wrapped Linear again would lose its LoRA: set it anew in place.
            linear.set_dtype_and_device(**config)
            linear.enable_fp8 = compute is FP8
            for name, parameter in linear.named_parameters():
                if waiting is not None and waiting.change(f"{path}.{name}", _cast):
                    parameter.data = _cast(parameter.data)
                else:
                    parameter.data = _cast(parameter.data.to(pipe.device)).to(parameter.device)
            changed += 1
    return StepEffect(changed, total)


def _cast(value: Tensor) -> Tensor:
    return value.to(FP8)


def quantize_below_lora(pipe: BasePipeline, method: str) -> StepEffect:
    """Quantize the Linear layers of ``pipe.dit`` by a method of DiffSynth's ``QuantizeConfig``, its LoRA kept.

    ``QuantizeConfig.quantize_model`` alone replaces the layers that hold an attached LoRA, and loses it.
    """
    return _quantize_torchao(pipe, pipe.dit, method)


def _quantize_torchao(pipe: BasePipeline, module: torch.nn.Module, scheme: str) -> StepEffect:
    from diffsynth.core.quant import QuantizeConfig  # noqa: PLC0415 - heavy
    from diffsynth.core.vram.layers import LoRAHotLoadMixin  # noqa: PLC0415

    settle_all(module)
    # By default torchao switches on inductor's coordinate-descent tuning for the whole process: the arms that come
    # after would be compiled otherwise than they are alone, and compiling one block takes minutes, not seconds.
    config = QuantizeConfig(method=scheme, backend_config_kwargs={"set_inductor_config": False})
    attached = {
        layer.name: (layer.lora_A_weights, layer.lora_B_weights)
        for layer in module.modules()
        if isinstance(layer, LoRAHotLoadMixin)
    }
    total = sum(isinstance(layer, torch.nn.Linear) for layer in module.modules())
    config.quantize_model(module)
    changed = sum(config.is_quantized_linear(layer) for layer in module.modules())
    module.quantize_config = config
    if attached:
        # quantize_model replaced the Linears that held the LoRA: wrap the new ones and hand it back.
        module.vram_management_enabled = False  # type: ignore[assignment]  # DiffSynth keeps a plain flag there
        pipe.enable_lora_hot_loading(module)
        for layer in module.modules():
            if isinstance(layer, LoRAHotLoadMixin) and layer.name in attached:
                layer.lora_A_weights, layer.lora_B_weights = attached[layer.name]
    return StepEffect(changed, total)


def unsupported(step: str) -> StrategyError:
    """Return the error for a step that names no scheme."""
    return StrategyError(f"step {step}: no scheme was chosen; allowed are {', '.join(SCHEMES)}")
