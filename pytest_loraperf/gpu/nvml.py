"""What the NVIDIA driver says, through NVML (the package ``nvidia-ml-py``); None or empty where it says nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml


@contextmanager
def _session() -> Iterator[bool]:
    """Open NVML; False where there is no driver to ask."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str | None:
    """The driver's version, such as ``580.159.04``."""
    with _session() as ready:
        return _text(pynvml.nvmlSystemGetDriverVersion()) if ready else None


def device_names() -> list[str]:
    """The names of all GPUs that the driver knows, also those hidden from CUDA."""
    with _session() as ready:
        if not ready:
            return []
        count = pynvml.nvmlDeviceGetCount()
        handles = (pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count))
        return [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]


def process_bytes(uuid: str) -> int | None:
    """Bytes that this process holds on the GPU of this UUID (``GPU-…``), the CUDA context included.

    None where the driver does not tell, as in containers, where process numbers are the host's.
    """
    with _session() as ready:
        if not ready:
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
