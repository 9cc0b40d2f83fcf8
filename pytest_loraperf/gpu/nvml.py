"""What the NVIDIA driver says, through NVML (``nvidia-ml-py``); None or empty where it says nothing."""

from __future__ import annotations

import atexit
import os
from functools import cache
from typing import Any

import pynvml


@cache
def _ready() -> bool:
    """Open NVML for the life of the process, for it takes long to open; False where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    atexit.register(pynvml.nvmlShutdown)
    return True


def driver_version() -> str | None:
    """The driver's version, such as ``580.159.04``."""
    return _text(pynvml.nvmlSystemGetDriverVersion()) if _ready() else None


def device_names() -> list[str]:
    """The names of all GPUs that the driver knows, also those hidden from CUDA."""
    if not _ready():
        return []
    handles = (pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount()))
    return [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]


def process_bytes(uuid: str) -> int | None:
    """Bytes that this process holds on the GPU of this UUID (``GPU-…``), the CUDA context included.

    None where the driver does not tell, as in containers, where process numbers are the host's.
    """
    if not _ready():
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return None
    mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return mine[0] if mine and isinstance(mine[0], int) else None


def _text(value: Any) -> str:
    # Older bindings return bytes.
    return value.decode() if isinstance(value, bytes) else str(value)
