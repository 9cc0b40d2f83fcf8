"""DiffSynth 1.1's VRAM management: what it does to Linears, without what it would lose on the way.

``enable_vram_management`` wraps every Linear, a wrapped one again: that loses its hot-loaded LoRA. It also casts
the norms to the dtype of the DiT's first parameter, fp8 where the Linears were quantized. Both are put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffsynth.vram_management import AutoWrappedLinear, AutoWrappedModule, enable_vram_management
from diffsynth.vram_management.layers import AutoTorchModule
from torch import Tensor

from pytest_loraperf.backends.protocol import StepEffect
from pytest_loraperf.backends.quantization import COMPUTE, FP8
from pytest_loraperf.strategies import Strategy

LOADED = "fp8_loaded"
"""The call alone, for a DiT that was loaded as fp8: on any other it quantizes nothing."""
HEADROOM = 0.5
"""GiB of a card kept free of resident weights: DiffSynth's own default of ``vram_buffer``."""


@dataclass(frozen=True)
class _Lora:
    """The hot-loaded LoRA of a wrapped Linear."""

    down: list[Tensor]
    up: list[Tensor]


def linears(module: torch.nn.Module) -> list[torch.nn.Linear]:
    """Return the Linear layers of a module."""
    return [part for part in module.modules() if isinstance(part, torch.nn.Linear)]


def quantized(module: torch.nn.Module) -> int:
    """Count the Linears whose weights are fp8."""
    return sum(part.weight.dtype is FP8 for part in linears(module))


def quantize(pipe: Any, scheme: str) -> StepEffect:
    """Quantize the Linears of ``pipe.dit`` in place; a LoRA hot-loaded before stays.

    ``fp8_loaded`` is the call that 1.1's users write, ``enable_vram_management(enable_dit_fp8_computation=True)``,
    and casts nothing by itself. The other schemes cast the Linears and keep them on the device.
    """
    total, before = len(linears(pipe.dit)), quantized(pipe.dit)
    if scheme == LOADED:
        with _loras_kept(pipe):
            # Without a GPU there is no free VRAM to ask for, and no limit to find by it.
            pipe.enable_vram_management(auto_offload=_on_gpu(pipe), enable_dit_fp8_computation=True)
        return StepEffect(quantized(pipe.dit), total)
    for part in linears(pipe.dit):
        part.to(FP8)
    _wrap(pipe, FP8 if scheme == COMPUTE else pipe.torch_dtype)
    return StepEffect(quantized(pipe.dit) - before, total)


def hot_loadable(pipe: Any) -> list[Any]:
    """Wrap the Linears of ``pipe.dit``, unless they are, so that LoRA can be hot-loaded into them; return them."""
    pipe.enable_lora_magic()
    return [part for _, part in _wrapped(pipe)]


def attached(layers: list[Any]) -> int:
    """Count the layers that have a hot-loaded LoRA."""
    return sum(bool(layer.lora_A_weights) for layer in layers)


def offload(pipe: Any, card: int) -> StepEffect:
    """Keep the weights of all models in host memory, and bring them over as a card of so many bytes allows."""
    computes_in_fp8 = any(getattr(part, "enable_fp8", False) for part in pipe.dit.modules())
    norms = {name: part for name, part in pipe.dit.named_modules() if _is_plain(part)}
    kept = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in norms.items()}
    with _loras_kept(pipe):
        pipe.enable_vram_management(
            # Without a GPU there is no free VRAM to compare with a limit.
            vram_limit=card / 2**30 if _on_gpu(pipe) else None,
            vram_buffer=HEADROOM,
            auto_offload=_on_gpu(pipe),
            enable_dit_fp8_computation=computes_in_fp8,
        )
    _restore(pipe, kept)
    managed = [part for _, model in pipe.named_children() for part in model.modules() if _is_managed(part)]
    for part in managed:
        part.to(device="cpu")
        part.state = 0
    note = "" if _on_gpu(pipe) else "the weights are in host memory already: no GPU here"
    return StepEffect(len(managed), len(managed), note)


def may_be_offloaded(strategy: Strategy) -> bool:
    """Whether a step of the strategy moves weights between calls."""
    return any(step.kind == "offload" or step.scheme == LOADED for step in strategy.steps)


def _wrap(pipe: Any, compute: torch.dtype) -> None:
    """Wrap the Linears as ``enable_lora_magic`` does, with the dtype that they compute in."""
    config = {"computation_dtype": compute, "computation_device": pipe.device}
    for state in ("offload", "onload"):
        config |= {f"{state}_dtype": FP8, f"{state}_device": pipe.device}
    with _loras_kept(pipe):
        enable_vram_management(pipe.dit, {torch.nn.Linear: AutoWrappedLinear}, config, vram_limit=None)


@contextlib.contextmanager
def _loras_kept(pipe: Any) -> Iterator[None]:
    """Give the LoRA of wrapped Linears to those that wrap them anew."""
    kept = {name: _Lora(part.lora_A_weights, part.lora_B_weights) for name, part in _wrapped(pipe)}
    yield
    for name, part in _wrapped(pipe):
        if name in kept:
            part.lora_A_weights, part.lora_B_weights = kept[name].down, kept[name].up


def _wrapped(pipe: Any) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in pipe.dit.named_modules() if isinstance(part, AutoWrappedLinear))


def _restore(pipe: Any, kept: dict[str, dict[str, Tensor]]) -> None:
    """Give the wrapped norms the values and the dtype that they had."""
    for name, values in kept.items():
        part = pipe.dit.get_submodule(name)
        if isinstance(part, AutoWrappedModule):
            part.offload_dtype = part.onload_dtype = next(iter(values.values())).dtype
            part.module.to(part.offload_dtype)
            part.module.load_state_dict(values)


def _is_plain(part: torch.nn.Module) -> bool:
    """Whether a module has parameters of its own and is no Linear, nor wrapped."""
    own = next(part.parameters(recurse=False), None) is not None
    return own and not isinstance(part, torch.nn.Linear)


def _is_managed(part: torch.nn.Module) -> bool:
    return isinstance(part, AutoTorchModule)


def _on_gpu(pipe: Any) -> bool:
    return torch.device(pipe.device).type != "cpu"
