"""Offloading: how, for which card, and the way of DiffSynth's own VRAM management."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from pytest_loraperf.backends.protocol import Choices, StepEffect
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.strategies import StepKind, Strategy

if TYPE_CHECKING:
    from diffsynth.diffusion.base_pipeline import BasePipeline

STREAM = "stream"
DIFFSYNTH = "diffsynth"
SCHEMES = (STREAM, DIFFSYNTH)
HEADROOM = 2**29
"""Bytes of a card kept free of resident weights, as in DiffSynth's low-VRAM examples (0.5 GiB)."""


def decided(strategy: Strategy, device: Device, choices: Choices, allowed: Sequence[str] = SCHEMES) -> Strategy:
    """Return the strategy with the scheme and the card of its offload steps, as the user's choices have it.

    ``allowed`` are the backend's schemes; the first is what ``auto`` is.

    Raises:
        StrategyError: a step names an unknown scheme.
    """
    chosen = strategy.with_scheme(allowed[0] if choices.offload == "auto" else choices.offload, StepKind.OFFLOAD)
    for step in chosen.steps:
        if step.kind is StepKind.OFFLOAD and step.scheme not in allowed:
            raise StrategyError(f"offload scheme {step.scheme!r}: allowed are {', '.join(allowed)}")
    steps = (
        replace(step, card=_card(step.card, device, choices)) if step.kind is StepKind.OFFLOAD else step
        for step in chosen.steps
    )
    return replace(chosen, steps=tuple(steps))


def _card(own: int | None, device: Device, choices: Choices) -> int | None:
    """Return the bytes of the card to be for: that which is asked for, or the step's own, at most the budget."""
    if choices.offload_limit is not None:
        return choices.offload_limit
    return min(filter(None, (own or device.total, choices.card)), default=None)


def offload(pipe: BasePipeline, card: int) -> StepEffect:
    """Keep the weights of all models in host memory and bring them over as a card of so many bytes allows.

    Every layer that DiffSynth can manage is managed; what is left (norms, embeddings of positions) is small
    and stays on the device.
    """
    layers = total = 0
    for _, module in pipe.named_children():
        if next(module.parameters(), None) is None:
            continue
        effect = _offload_module(pipe, module, (card - HEADROOM) / 2**30)
        layers, total = layers + effect.layers, total + effect.total
    on_gpu = torch.device(pipe.device).type != "cpu"
    # DiffSynth asks torch.cpu.empty_cache(), which is not there: on the CPU it must not manage.
    pipe.vram_management_enabled = on_gpu
    return StepEffect(layers, total, "" if on_gpu else "the weights are in host memory already: no GPU here")


def _offload_module(pipe: BasePipeline, module: torch.nn.Module, limit: float) -> StepEffect:
    from diffsynth.core.vram.layers import AutoTorchModule, enable_vram_management  # noqa: PLC0415 - heavy

    already = getattr(module, "vram_management_enabled", False)
    if not already:
        config = _config(pipe, pipe.torch_dtype, pipe.torch_dtype)
        enable_vram_management(module, _module_map(module), vram_config=config, vram_limit=limit)
    managed = [layer for layer in module.modules() if isinstance(layer, AutoTorchModule)]
    for layer in managed:
        layer.set_dtype_and_device(**_config(pipe, layer.onload_dtype, layer.computation_dtype), vram_limit=limit)
        layer.to(device="cpu")
        layer.state = 0
    _keep_rest_on_device(pipe, module, managed)
    return StepEffect(len(managed), len(managed))


def _config(pipe: BasePipeline, stored: torch.dtype, compute: torch.dtype) -> dict[str, Any]:
    return {
        "offload_dtype": stored,
        "offload_device": "cpu",
        "onload_dtype": stored,
        "onload_device": "cpu",
        "preparing_dtype": stored,
        "preparing_device": pipe.device,
        "computation_dtype": compute,
        "computation_device": pipe.device,
    }


def _module_map(module: torch.nn.Module) -> dict[type, type]:
    """Return DiffSynth's own table for this class of model, and Linears only for one that it does not know."""
    from diffsynth.core.vram.layers import AutoWrappedLinear  # noqa: PLC0415 - heavy
    from diffsynth.models.model_loader import VRAM_MANAGEMENT_MODULE_MAPS  # noqa: PLC0415

    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    table = VRAM_MANAGEMENT_MODULE_MAPS.get(kind, {})
    found = {_class(source): _class(target) for source, target in table.items()}
    # The table may name classes that this version of transformers does not have (any more).
    known = {source: target for source, target in found.items() if source and target}
    return known or {torch.nn.Linear: AutoWrappedLinear}


def _class(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def _keep_rest_on_device(pipe: BasePipeline, module: torch.nn.Module, managed: list[torch.nn.Module]) -> None:
    inside = {id(tensor) for layer in managed for tensor in (*layer.parameters(), *layer.buffers())}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in inside:
            tensor.data = tensor.data.to(pipe.device)
