"""Seeded random weights, drawn on the computing device one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pytest_loraperf.backends.streaming.packing import aligned
from pytest_loraperf.gpu.pinned import host_memories

SMALL = 0.02
"""Standard deviation of biases and embeddings, as in transformers' ``initializer_range``."""


def fill(
    module: torch.nn.Module,
    generator: torch.Generator,
    *,
    weights_on: torch.device | str,
    dtype: torch.dtype,
    blocks: Sequence[torch.nn.Module] = (),
) -> None:
    """Give every parameter of a module on the meta device its values, in the order of their names.

    Weights of products have a standard deviation of 1/√(fan in), so that activations keep their size; gains of
    norms are 1; biases and embeddings are small. All are drawn on the generator's device, so that the values do
    not depend on where they are then kept, and no more than a few tensors are on that device when kept elsewhere.
    The weights of each of ``blocks`` are then kept in pinned memory of their own, so that offload steps find them
    there: pinning takes longer than all the rest, and it is done while the values are drawn.
    """
    away = generator.device.type == "cuda" and torch.device(weights_on).type == "cpu"
    homes = _Homes(blocks if away else (), dtype, generator.device)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            values = torch.empty(parameter.shape, dtype=dtype, device=generator.device)
            std = _std(part, name, parameter)
            if std is None:
                values.fill_(1.0)
            else:
                values.normal_(0.0, std, generator=generator)
            kept = homes.take(part, values)
            kept = values.to(weights_on) if kept is None else kept
            setattr(part, name, torch.nn.Parameter(kept, requires_grad=False))
    if away:
        torch.cuda.synchronize(generator.device)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(weights_on))


class _Homes:
    """Pinned memory for the tensors of blocks, which come block by block."""

    def __init__(self, blocks: Sequence[torch.nn.Module], dtype: torch.dtype, device: torch.device) -> None:
        self._owners: Mapping[int, int] = {
            id(part): index for index, block in enumerate(blocks) for part in block.modules()
        }
        sizes = [sum(aligned(each.numel() * dtype.itemsize) for each in block.parameters()) for block in blocks]
        self._memories: Iterator[Tensor] = (memory.bytes for memory in host_memories(sizes, device))
        self._index = -1
        self._dtype = dtype
        self._memory = torch.empty(0, dtype=dtype)
        self._start = 0

    def take(self, part: torch.nn.Module, values: Tensor) -> Tensor | None:
        """Return the values where they are kept, on their way there, or None if the part is of no block."""
        index = self._owners.get(id(part))
        if index is None:
            return None
        while self._index < index:
            self._index, self._memory = self._index + 1, next(self._memories).view(self._dtype)
            self._start = int(self._memory.storage_offset()) * self._dtype.itemsize
        # One operation for each tensor: a forecast follows them all.
        place = self._memory.as_strided(values.shape, values.stride(), self._start // self._dtype.itemsize)
        self._start += aligned(values.nbytes)
        return place.copy_(values, non_blocking=True)


def _std(part: torch.nn.Module, name: str, parameter: torch.Tensor) -> float | None:
    """Return the standard deviation of a parameter, None for the gain of a norm."""
    if isinstance(part, torch.nn.Embedding) or name == "bias":
        return SMALL
    if parameter.squeeze().dim() < 2:  # noqa: PLR2004 - a vector, or (C, 1, 1): the gain of a norm
        return None
    return math.sqrt(1 / parameter[0].numel())
