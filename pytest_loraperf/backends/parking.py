"""Parking: what a pipeline's modules hold on a device goes into host memory, and comes back as it was.

Modules, Parameters and tensors stay the same objects, so that what was compiled for them still holds: only the
memory behind them changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pytest_loraperf.gpu.pinned import HostMemory
from pytest_loraperf.gpu.tensors import tensors_of

COPYING = 55e9
"""Bytes a second between pinned memory and an H100, measured; the same both ways on an H200 (DeepSpeed #8283)."""
PINNING = 3e9
"""Bytes a second that can be pinned, page by page: a cautious guess, since in doubt an arm is rebuilt as ever."""
ALIGNMENT = 512
"""Bytes; torch's own allocator on CUDA rounds up to as many, so that parking takes what the device held."""


def parking_seconds(size: int, *, pinned: bool) -> float:
    """Estimate the seconds that so many bytes take out and back, ``pinned`` where their host memory is already."""
    return 2 * size / COPYING + (0.0 if pinned else size / PINNING)


@dataclass(frozen=True)
class Berth:
    """Tensors that share a storage, its bytes in host memory (uint8, one dimension), and the device it is from."""

    tensors: tuple[Tensor, ...]
    bytes: Tensor
    device: torch.device


@dataclass(frozen=True)
class Parked:
    """What was parked and where; ``memory`` can be used again once it is back."""

    memory: HostMemory
    berths: tuple[Berth, ...]


@dataclass(frozen=True)
class _Move:
    tensors: tuple[Tensor, ...]
    old: Tensor
    new: Tensor


def park(pipeline: Any, device: str | torch.device, kept: Parked | None = None) -> Parked:
    """Move the tensors that the modules hold on devices of this type into host memory; others stay where they are.

    Args:
        pipeline: a module of modules, such as a DiffSynth pipeline.
        device: where it computes. With "cpu" the tensors move too, to other host memory.
        kept: an earlier parking of it, which is over; its memory is used again if it suffices.

    Raises:
        RuntimeError: host memory is short, or a tensor cannot be moved; the pipeline is as it was.
    """
    held = _storages(_tensors(pipeline, torch.device(device).type))
    sizes = [-(-storage.numel() // ALIGNMENT) * ALIGNMENT for _, storage in held]
    starts = list(accumulate(sizes, initial=0))
    if kept is not None and kept.memory.bytes.numel() >= starts[-1]:
        memory = kept.memory
    else:
        memory = HostMemory(starts[-1], pinned=torch.device(device).type == "cuda")
    moves = [
        _Move(tensors, storage, memory.bytes[start : start + storage.numel()])
        for (tensors, storage), start in zip(held, starts, strict=False)
    ]
    _carry_out(moves)
    return Parked(memory, tuple(Berth(move.tensors, move.new, move.old.device) for move in moves))


def unpark(parked: Parked) -> None:
    """Move everything back to where it was.

    Raises:
        RuntimeError: the device has no room; everything is in host memory still.
    """
    _carry_out(
        [
            _Move(berth.tensors, berth.bytes, torch.empty_like(berth.bytes, device=berth.device))
            for berth in parked.berths
        ]
    )


def _tensors(pipeline: Any, device_type: str) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_of(pipeline) if tensor.device.type == device_type)


def _storages(tensors: Iterator[Tensor]) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Return each storage as bytes, and the tensors that it is behind, each once."""
    found: dict[int, dict[int, Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.untyped_storage()._cdata, {})[id(tensor)] = tensor  # noqa: SLF001 - the one identity a storage has
    groups = [tuple(sharing.values()) for sharing in found.values()]
    return [(group, _bytes(group[0])) for group in groups]


def _bytes(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _carry_out(moves: Sequence[_Move]) -> None:
    """Copy everything, then let the tensors be where it is; all of them or none."""
    for move in moves:
        move.new.copy_(move.old, non_blocking=True)
    for device in {end.device for move in moves for end in (move.old, move.new) if end.is_cuda}:
        torch.cuda.synchronize(device)
    for move in moves:
        for tensor in move.tensors:
            tensor.data = _moved(tensor, move)


def _moved(tensor: Tensor, move: _Move) -> Tensor:
    """Return the tensor as it is in its new memory: dtype, shape, strides and its place in the storage."""
    start = move.new.storage_offset() - move.old.storage_offset()
    view = torch.empty(0, dtype=tensor.dtype, device=move.new.device)
    offset = tensor.storage_offset() + start // tensor.itemsize
    return view.set_(move.new.untyped_storage(), offset, tensor.size(), tensor.stride())
