"""Packing: the tensors of a block in one run of bytes, so that one copy brings them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes; where a tensor starts, as torch's own allocator on CUDA aligns what it gives: kernels may ask for it."""


Draw = Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]]
"""Fills the places, by the ids of tensors, of those that have no values; returns what stands for these."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a block's bytes, from its first byte on."""

    start: int
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]

    def view(self, block: Tensor) -> Tensor:
        """Return the tensor in these bytes, which are seen as elements of its type (one dimension)."""
        offset = block.storage_offset() + self.start // self.dtype.itemsize
        return block.as_strided(self.size, self.stride, offset)


@dataclass(frozen=True, eq=False)
class Packed:
    """A block's tensors, and the host memory that they lie in: its ``size`` bytes (uint8, one dimension)."""

    tensors: tuple[Tensor, ...]
    places: tuple[Place, ...]
    host: Tensor

    @cached_property
    def at_home(self) -> list[Tensor]:
        """The tensors in host memory, made once: blocks come and go many times a second."""
        return self.views(self.host)

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return self.host.numel()

    def views(self, block: Tensor) -> list[Tensor]:
        """Return the tensors as they lie in other bytes that hold, or will hold, a copy of the block."""
        return _views(self.places, block[: self.size])

    def point_at(self, views: Sequence[Tensor]) -> None:
        """Let the tensors be these; they stay the same objects."""
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view


def _views(places: Sequence[Place], block: Tensor) -> list[Tensor]:
    typed = {dtype: block.view(dtype) for dtype in {place.dtype for place in places}}
    return [place.view(typed[place.dtype]) for place in places]


def places_of(tensors: Iterable[Tensor]) -> tuple[tuple[Place, ...], int]:
    """Return where each tensor goes, and the bytes that all take."""
    places, end = [], 0
    for tensor in tensors:
        # Strides are kept: another layout may be computed by another kernel, with other rounding.
        steps = (step * (count - 1) for count, step in zip(tensor.shape, tensor.stride(), strict=True))
        span = (sum(steps) + 1) * tensor.element_size()
        places.append(Place(end, tensor.dtype, tensor.shape, tensor.stride()))
        end += aligned(span)
    return tuple(places), end


def aligned(size: int) -> int:
    """Return the size with what is lost up to the next tensor."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack(
    tensors: Sequence[Tensor], memory: Tensor, *, staging: Tensor | None = None, draw: Draw | None = None
) -> Packed:
    """Move the tensors into host memory, one after the other.

    Args:
        tensors: on any device, each once, none of them empty.
        memory: bytes (uint8, one dimension), at least as many as ``places_of`` says.
        staging: as many bytes elsewhere, for tensors that lie in ``memory`` and would overwrite each other.
        draw: puts values into the places of tensors that have none yet, and returns those that have them instead.
    """
    places, size = places_of(tensors)
    host = memory[:size]
    target = host if staging is None else staging[:size]
    views = _views(places, target)
    drawn = {} if draw is None else draw(dict(zip(map(id, tensors), views, strict=True)))
    for tensor, view in zip(tensors, views, strict=True):
        if id(tensor) not in drawn:
            view.copy_(tensor.data, non_blocking=staging is not None)
    if staging is not None:
        host.copy_(target)
    packed = Packed(tuple(drawn.get(id(tensor), tensor) for tensor in tensors), places, host)
    packed.point_at(packed.at_home)
    return packed
