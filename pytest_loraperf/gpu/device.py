"""Which device a run uses, what it is, and why it cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pytest_loraperf.errors import DeviceError
from pytest_loraperf.gpu import nvml

FP8_MATMUL_CAPABILITY = (8, 9)


@dataclass(frozen=True)
class Device:
    """One device of this machine.

    ``torch_name`` is what torch takes (``cuda:0`` or ``cpu``); ``total`` is bytes of VRAM, 0 on the CPU; ``uuid``
    is the driver's name of the GPU (``GPU-…``).
    """

    torch_name: str
    name: str
    total: int = 0
    capability: tuple[int, int] | None = None
    driver: str | None = None
    uuid: str | None = None

    @property
    def is_cuda(self) -> bool:
        """Whether this is a CUDA device."""
        return self.torch_name.startswith("cuda")

    @property
    def index(self) -> int:
        """The CUDA index among the visible devices, 0 on the CPU."""
        return int(self.torch_name.partition(":")[2] or 0)

    @property
    def has_fp8_matmul(self) -> bool:
        """Whether matrix products in fp8 run on it (compute capability 8.9 and later)."""
        return self.capability is not None and self.capability >= FP8_MATMUL_CAPABILITY

    @property
    def gpu_mark(self) -> Callable[[], GpuMark] | None:
        """How to mark a moment of this GPU's work; None on the CPU."""
        return (lambda: GpuMark(self.index)) if self.is_cuda else None

    def synchronize(self) -> None:
        """Wait until all that was launched has run."""
        if self.is_cuda:
            torch.cuda.synchronize(self.index)


class GpuMark:
    """A moment of a GPU's work: a CUDA event in the order of what is launched."""

    def __init__(self, index: int) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._event.record(torch.cuda.current_stream(index))

    def since(self, earlier: GpuMark) -> float:
        """Seconds of GPU time from an earlier mark; the device must have been waited for."""
        milliseconds: float = earlier._event.elapsed_time(self._event)
        return milliseconds / 1e3


def resolve_device(wanted: str) -> Device:
    """Return the device that ``--loraperf-device`` names.

    Raises:
        DeviceError: the name is not understood, there is no such device, or CUDA is there but broken.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise DeviceError(f"device {wanted!r}: allowed are auto, cpu, cuda and cuda:N")
    if wanted == "cpu":
        return Device("cpu", "CPU")
    if torch.cuda.is_available():
        return _cuda_device(int(wanted.partition(":")[2] or 0))
    present = _hidden_from_torch()
    if present:
        raise DeviceError(f"{present}; mend it, or run on the CPU with --loraperf-device=cpu")
    if wanted != "auto":
        raise DeviceError(f"device {wanted!r}: no CUDA device here; use --loraperf-device=cpu")
    return Device("cpu", "CPU")


def _cuda_device(index: int) -> Device:
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"device cuda:{index}: there are {count} CUDA devices; the last is cuda:{count - 1}")
    try:
        properties = torch.cuda.get_device_properties(index)
        torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"CUDA is present but does not work: {reason}; mend it, or run with --loraperf-device=cpu"
        ) from error
    return Device(
        f"cuda:{index}",
        properties.name,
        properties.total_memory,
        (properties.major, properties.minor),
        nvml.driver_version(),
        f"GPU-{properties.uuid}" if hasattr(properties, "uuid") else None,
    )


def _hidden_from_torch() -> str | None:
    """Say why a GPU that the driver knows is not one that torch can use, or None where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    names = nvml.device_names()
    if not names:
        return None
    if torch.version.cuda is None:
        return f"a GPU is here ({names[0]}) but torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except (RuntimeError, AssertionError) as error:
        return f"a GPU is here ({names[0]}) but torch cannot use it: {str(error).splitlines()[0]}"
    return f"a GPU is here ({names[0]}) but torch cannot use it (torch.cuda.is_available() is False)"
