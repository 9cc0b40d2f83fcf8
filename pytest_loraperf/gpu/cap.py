"""A small card played by a larger one: an allocator limit, and what frameworks are told of the card's size."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from ctypes import Structure
from functools import wraps
from typing import Any
from unittest.mock import patch

import pynvml
import torch
import wrapt

from pytest_loraperf.errors import DeviceError
from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.units import format_size

TOLD_BY_TORCH = (
    (torch.cuda, "mem_get_info"),
    (torch.cuda.memory, "mem_get_info"),
    (torch.accelerator, "get_memory_info"),
)
"""Who tells free and total bytes; the last one is of torch 2.9 and later."""


class Cap:
    """While it is entered, this process has no more of its GPU than a card of ``size`` bytes has.

    torch's allocator raises ``torch.OutOfMemoryError`` beyond it. ``torch.cuda.mem_get_info``,
    ``torch.cuda.get_device_properties``, ``torch.accelerator.get_memory_info`` and NVML's memory information tell
    the small card's size; compute capability, clocks and other GPUs stay as they are. ``outside`` returns the
    bytes that this process holds besides torch's: the CUDA context and libraries.
    """

    def __init__(self, device: Device, size: int, outside: Callable[[], int]) -> None:
        self.device = device
        self.size = size
        self._outside = outside
        self._undo = ExitStack()
        self._real_info = torch.cuda.mem_get_info

    def enter(self) -> None:
        """Make the card small.

        Raises:
            DeviceError: The card is smaller than that, or not even the CUDA context fits.
        """
        wanted = format_size(self.size)
        if self.size > self.device.total:
            have = f"{self.device.name} has {format_size(self.device.total)}"
            raise DeviceError(f"a card of {wanted} cannot be played by a smaller one: {have}; lower --gpu-budget")
        outside = self.outside()
        if self.size <= outside:
            raise DeviceError(
                f"a card of {wanted} has no room for tensors: the CUDA context and libraries alone take "
                f"{format_size(outside)} here; raise --gpu-budget"
            )
        self.adjust()
        self._undo.callback(torch.cuda.set_per_process_memory_fraction, 1.0, self.device.index)
        for module, name in TOLD_BY_TORCH:
            if hasattr(module, name):
                self._patch(module, name, self._memory)
        self._patch(torch.cuda, "get_device_properties", self._properties)
        self._patch(pynvml, "nvmlDeviceGetMemoryInfo", self._nvml)

    def close(self) -> None:
        """Give the whole card back."""
        self._undo.close()

    def adjust(self) -> None:
        """Let the allocator have what the context and libraries leave; they grow as kernels are loaded."""
        share = max(0, self.size - self.outside()) / self.device.total
        torch.cuda.set_per_process_memory_fraction(share, self.device.index)

    def outside(self) -> int:
        """Bytes of the small card that are taken but not torch's.

        Where the driver does not tell what this process holds, as in some containers, all that torch did not
        reserve counts, whoever holds it.
        """
        told = self._outside()
        if told:
            return told
        free, total = self._real_info(self.device.index)
        return max(0, total - free - self._reserved())

    def parts(self) -> dict[str, int]:
        """Bytes of the small card by what holds them, for a message."""
        reserved, live = self._reserved(), torch.cuda.memory_allocated(self.device.index)
        return {
            "live tensors": live,
            "reserved, not in use": reserved - live,
            "context and libraries": self.outside(),
            "card": self.size,
        }

    def _reserved(self) -> int:
        return torch.cuda.memory_reserved(self.device.index)

    def _free(self, really: int) -> int:
        return max(0, min(really, self.size - self.outside() - self._reserved()))

    def _patch(self, module: Any, name: str, replacement: Callable[..., Any]) -> None:
        real = getattr(module, name)

        @wraps(real)
        def told(*args: Any, **kwargs: Any) -> Any:
            return replacement(real(*args, **kwargs), *args, **kwargs)

        self._undo.enter_context(patch.object(module, name, told))

    def _is_mine(self, device: Any = None) -> bool:
        named: Any = device if isinstance(device, int) or device is None else torch.device(device).index
        return (torch.cuda.current_device() if named is None else named) == self.device.index

    def _memory(self, found: tuple[int, int], device: Any = None, **named: Any) -> tuple[int, int]:
        if not self._is_mine(named.get("device", device)):
            return found
        return self._free(found[0]), self.size

    def _properties(self, found: Any, device: Any = None) -> Any:
        return Smaller(found, self.size) if self._is_mine(device) else found

    def _nvml(self, found: Structure, handle: Any, *_: Any, **__: Any) -> Structure:
        if nvml.uuid_of(handle) != self.device.uuid:
            return found
        small = type(found).from_buffer_copy(found)
        small.total, small.free = self.size, self._free(found.free)
        small.used = small.total - small.free
        return small


class Smaller(wrapt.ObjectProxy[Any]):
    """A device's properties but for its memory."""

    def __init__(self, properties: Any, total: int) -> None:
        super().__init__(properties)
        self._self_total = total

    @property
    def total_memory(self) -> int:
        """Bytes of the small card."""
        return int(self._self_total)
