"""Copies between host memory and a device: beside the computing on CUDA, in turn with it on the CPU."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

Mark = Any
"""A moment in the order of what was launched: a CUDA event, or None where everything is done at once."""


class Copies(Protocol):
    """Moves bytes to a device while others are computed with."""

    forked: bool
    """Whether they work in a process that was forked from the one that made them."""
    overhead: int
    """Bytes of a card that no tensor is in."""
    grain: int
    """Bytes; what is large takes a multiple of it."""

    def buffer(self, size: int) -> Tensor:
        """Return bytes (uint8, one dimension) on the device."""

    def load(self, source: Tensor, target: Tensor, after: Mark) -> Mark:
        """Copy host memory to the device once the mark is reached, and return when it is there."""

    def mark(self) -> Mark:
        """Return when all that was launched to compute up to here is done."""

    def wait(self, mark: Mark) -> None:
        """Let what is launched from here on compute after the mark only."""

    def retire(self) -> None:
        """Let buffers be given back: they are used again once what computes with them is done."""

    def allocated(self) -> int:
        """Return the bytes of this process's live tensors on the device."""

    def trim(self) -> None:
        """Give back to the device what is reserved and not used."""


class CudaCopies:
    """Copies on a stream of their own; buffers are of that stream, since it writes to them first."""

    forked = False
    overhead = 3 * 2**28
    """The CUDA context and the libraries' own, 0.67 GB on an H100, and cuBLAS's workspace."""
    grain = 2**21
    """What torch's allocator rounds to."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def buffer(self, size: int) -> Tensor:
        """Return bytes that are the copying stream's."""
        with torch.cuda.stream(self._stream):
            return torch.empty(size, dtype=torch.uint8, device=self._device)

    def load(self, source: Tensor, target: Tensor, after: Mark) -> Mark:
        """Copy on the stream."""
        with torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def mark(self) -> Mark:
        """Mark the stream that computes."""
        return torch.cuda.current_stream(self._device).record_event()

    def wait(self, mark: Mark) -> None:
        """Let the stream that computes wait."""
        if mark is not None:
            torch.cuda.current_stream(self._device).wait_event(mark)

    def retire(self) -> None:
        """Let the copying stream, whose memory it is, wait for the one that computes."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def allocated(self) -> int:
        """Bytes that torch's allocator has given out."""
        return torch.cuda.memory_allocated(self._device)

    def trim(self) -> None:
        """Empty the allocator's cache."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


class PlainCopies:
    """Copies at once, in the same memory: what runs on the CPU is the same but for the waiting."""

    forked = True
    overhead = 0
    grain = 1

    def buffer(self, size: int) -> Tensor:
        """Return bytes of host memory."""
        return torch.empty(size, dtype=torch.uint8)

    def load(self, source: Tensor, target: Tensor, after: Mark) -> Mark:  # noqa: ARG002 - all is done at once
        """Copy now."""
        target.copy_(source)

    def mark(self) -> Mark:
        """Return nothing: all is done."""

    def wait(self, mark: Mark) -> None:
        """Do nothing: all is done."""

    def retire(self) -> None:
        """Do nothing: all is done."""

    def allocated(self) -> int:
        """Return none: there is no card."""
        return 0

    def trim(self) -> None:
        """Do nothing: nothing is kept back."""


def copies_for(device: torch.device) -> Copies:
    """Return how bytes get to this device."""
    return CudaCopies(device) if device.type == "cuda" else PlainCopies()
