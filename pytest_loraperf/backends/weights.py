"""Seeded random weights, drawn on the computing device one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from pytest_loraperf.backends.undrawn import ATTRIBUTE, Undrawn, draw
from pytest_loraperf.gpu.pinned import HostMemory, host_memories

SMALL = 0.02
"""Standard deviation of biases and embeddings, as in transformers' ``initializer_range``."""


def fill(
    module: torch.nn.Module,
    generator: torch.Generator,
    *,
    weights_on: torch.device | str,
    dtype: torch.dtype,
    later: Collection[str] = (),
) -> None:
    """Give every parameter of a module on the meta device its values, in the order of their names.

    Weights of products have a standard deviation of 1/√(fan in), so that activations keep their size; gains of
    norms are 1; biases and embeddings are small. All are drawn on the generator's device, so that the values do
    not depend on where they are then kept, and no more than a few tensors are on that device when kept elsewhere.
    The parameters of the blocks whose names are in ``later`` wait until they are needed (``undrawn``).
    """
    waiting = Undrawn(generator, dtype)
    away = generator.device.type == "cuda" and torch.device(weights_on).type == "cpu"
    all_of_it = [each for part in module.modules() for each in part.parameters(recurse=False)]
    sizes = [each.numel() * dtype.itemsize for each in all_of_it] if away and not later else []
    homes = host_memories(sizes, generator.device, pin=False)  # made by several threads while values are drawn
    for path, part in module.named_modules():
        block = next((name for name in later if f"{path}.".startswith(f"{name}.")), None)
        for name, parameter in part.named_parameters(recurse=False):
            std, full_name = _std(part, name, parameter), f"{path}.{name}"
            if block is not None:
                setattr(part, name, waiting.add(block, full_name, parameter.shape, std))
            # What waits is drawn here too: the values of those that follow depend on it.
            values = draw(parameter.shape, std, dtype, generator)
            if block is None:
                kept = _kept(values, weights_on, next(homes, None))
                setattr(part, name, torch.nn.Parameter(kept, requires_grad=False))
    if waiting.blocks:
        setattr(module, ATTRIBUTE, waiting)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(weights_on))


def _kept(values: Tensor, weights_on: torch.device | str, home: HostMemory | None) -> Tensor:
    if home is None:
        return values.to(weights_on)
    return home.bytes.view(values.dtype).view(values.shape).copy_(values)


def _std(part: torch.nn.Module, name: str, parameter: torch.Tensor) -> float | None:
    """Return the standard deviation of a parameter, None for the gain of a norm."""
    if isinstance(part, torch.nn.Embedding) or name == "bias":
        return SMALL
    if parameter.squeeze().dim() < 2:  # noqa: PLR2004 - a vector, or (C, 1, 1): the gain of a norm
        return None
    return math.sqrt(1 / parameter[0].numel())
