"""Seeded random weights, drawn on the computing device one tensor at a time."""

from __future__ import annotations

import math

import torch

SMALL = 0.02
"""Standard deviation of biases and embeddings, as in transformers' ``initializer_range``."""


def fill(
    module: torch.nn.Module,
    generator: torch.Generator,
    *,
    weights_on: torch.device | str,
    dtype: torch.dtype,
) -> None:
    """Give every parameter of a module on the meta device its values, in the order of their names.

    Weights of products have a standard deviation of 1/√(fan in), so that activations keep their size; gains of
    norms are 1; biases and embeddings are small. All are drawn on the generator's device, so that the values do
    not depend on where they are then kept, and no more than one tensor is on that device when kept elsewhere.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            values = torch.empty(parameter.shape, dtype=dtype, device=generator.device)
            std = _std(part, name, parameter)
            if std is None:
                values.fill_(1.0)
            else:
                values.normal_(0.0, std, generator=generator)
            kept = torch.nn.Parameter(values.to(weights_on), requires_grad=False)
            setattr(part, name, kept)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(weights_on))


def _std(part: torch.nn.Module, name: str, parameter: torch.Tensor) -> float | None:
    """Return the standard deviation of a parameter, None for the gain of a norm."""
    if isinstance(part, torch.nn.Embedding) or name == "bias":
        return SMALL
    if parameter.squeeze().dim() < 2:  # noqa: PLR2004 - a vector, or (C, 1, 1): the gain of a norm
        return None
    return math.sqrt(1 / parameter[0].numel())
