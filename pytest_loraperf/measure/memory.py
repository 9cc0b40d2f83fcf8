"""Memory: the peak and the level of what a card must have, on CUDA and counted on the CPU."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device


class Meter(Protocol):
    """Bytes in use on the device, by this process; ``overhead`` is what no tensor accounts for."""

    kind: str

    def watching(self) -> Any:
        """Return a context in which tensors are counted; reentrant."""

    def reset_peak(self) -> None:
        """Let the peak start from the present level."""

    def level(self) -> int:
        """Bytes held now, without the overhead; unused cache is given back first."""

    def peak(self) -> int:
        """The highest level since the last reset, without the overhead."""

    def reserved_now(self) -> int:
        """Bytes held now, unused cache included, without the overhead."""

    def allocated(self) -> int:
        """Bytes of live tensors now."""

    def allocated_peak(self) -> int:
        """The highest sum of live tensors since the last reset."""

    def free(self) -> int:
        """Bytes that are left on the device, whoever holds the rest."""

    def overhead(self) -> int:
        """Bytes that this process holds besides tensors: the CUDA context and libraries."""


def meter_for(device: Device) -> Meter:
    """Return the meter of this device."""
    return CudaMeter(device) if device.is_cuda else TensorBytes()


class CudaMeter:
    """VRAM from torch's caching allocator, and from the driver what lies outside it."""

    kind = "VRAM"

    def __init__(self, device: Device) -> None:
        self._index = device.index
        self._uuid = device.uuid
        self._outside = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Do nothing: the allocator always counts."""
        yield

    def reset_peak(self) -> None:
        """Give back unused cache, so that the peak starts from what is in use."""
        torch.cuda.synchronize(self._index)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._index)

    def level(self) -> int:
        """Bytes reserved once unused cache is given back."""
        torch.cuda.synchronize(self._index)
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._index)

    def peak(self) -> int:
        """Bytes reserved at most: allocations and the allocator's fragmentation."""
        return torch.cuda.max_memory_reserved(self._index)

    def reserved_now(self) -> int:
        """Bytes that torch's allocator holds."""
        return torch.cuda.memory_reserved(self._index)

    def allocated(self) -> int:
        """Bytes of live tensors."""
        return torch.cuda.memory_allocated(self._index)

    def allocated_peak(self) -> int:
        """Bytes of live tensors at most."""
        return torch.cuda.max_memory_allocated(self._index)

    def free(self) -> int:
        """Bytes that the driver has left once unused cache is given back."""
        torch.cuda.synchronize(self._index)
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._index)[0]

    def overhead(self) -> int:
        """Bytes of this process that torch did not reserve; 0 where the driver never told.

        A driver that told and no longer does leaves what it told last: no test becomes smaller by its silence.
        """
        held = nvml.process_bytes(self._uuid) if self._uuid else None
        if held is not None:
            self._outside = max(0, held - torch.cuda.memory_reserved(self._index))
        return self._outside


class TensorBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """The bytes of live tensors, each storage once, seen as operations touch them.

    Storages that no operation inside ``watching`` touches are not seen.
    """

    kind = "tensor bytes"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._sizes: dict[int, int] = {}
        self._level = 0
        self._peak = 0
        self._depth = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the tensors of all operations in this context."""
        self._depth += 1
        try:
            if self._depth == 1:
                with self:
                    yield
            else:
                yield
        finally:
            self._depth -= 1

    def reset_peak(self) -> None:
        """Let the peak start from the live tensors."""
        self._peak = self._level

    def level(self) -> int:
        """Bytes of live tensors."""
        return self._level

    def peak(self) -> int:
        """Bytes of live tensors at most."""
        return self._peak

    def reserved_now(self) -> int:
        """Bytes of live tensors: nothing is reserved ahead."""
        return self._level

    def allocated(self) -> int:
        """The same: nothing is reserved ahead."""
        return self._level

    def allocated_peak(self) -> int:
        """The same."""
        return self._peak

    def free(self) -> int:
        """No limit: what host memory has left is not watched."""
        return sys.maxsize

    def overhead(self) -> int:
        """Return none: there is no context."""
        return 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._see(leaf)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:
            return  # a wrapper such as torchao's: the tensors inside are seen by themselves
        size, key = storage.nbytes(), storage._cdata  # noqa: SLF001 - the one identity a storage has
        known = self._sizes.get(key)
        if known is None:
            weakref.finalize(storage, self._forget, key)
        self._sizes[key] = size
        self._level += size - (known or 0)
        self._peak = max(self._peak, self._level)

    def _forget(self, key: int) -> None:
        self._level -= self._sizes.pop(key, 0)
