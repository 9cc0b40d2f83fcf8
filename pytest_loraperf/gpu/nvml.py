"""What the NVIDIA driver says, through NVML (``nvidia-ml-py``); None or empty where it says nothing.

Everything here asks; nothing here changes a setting of the GPU. A ``uuid`` is that of one GPU, as ``GPU-…``.
"""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pynvml

THROTTLE_REASONS = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "thermal slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "thermal slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
}
"""The driver's bits that slow work down, by name; an idle GPU and clocks that a user set are no throttling."""


@dataclass(frozen=True)
class Reading:
    """What the driver said of a GPU at one moment; None is what it did not tell.

    ``throttle`` are names of ``THROTTLE_REASONS``; ``used_bytes`` is what all processes hold on the device; an
    old driver adds some hundred MB that it keeps for itself.
    """

    sm_clock_mhz: int | None = None
    throttle: frozenset[str] | None = None
    temperature_c: int | None = None
    used_bytes: int | None = None


@cache
def _ready() -> bool:
    """Open NVML for the life of the process, for it takes long to open; False where there is no driver."""
    try:
        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - as in `_answer`
        return False
    atexit.register(pynvml.nvmlShutdown)
    return True


def driver_version() -> str | None:
    """The driver's version, such as ``580.159.04``."""
    version = _answer(pynvml.nvmlSystemGetDriverVersion)
    return None if version is None else _text(version)


def device_names() -> list[str]:
    """The names of all GPUs that the driver knows, also those hidden from CUDA."""
    handles = (
        _answer(pynvml.nvmlDeviceGetHandleByIndex, i) for i in range(_answer(pynvml.nvmlDeviceGetCount) or 0)
    )
    names = (_answer(pynvml.nvmlDeviceGetName, handle) for handle in handles if handle is not None)
    return [_text(name) for name in names if name is not None]


def process_bytes(uuid: str) -> int | None:
    """Bytes that this process holds on the GPU, the CUDA context included.

    None where the driver does not tell, as in containers, where process numbers are the host's.
    """
    processes = _ask(uuid, pynvml.nvmlDeviceGetComputeRunningProcesses) or ()
    mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    return mine[0] if mine and isinstance(mine[0], int) else None


def read(uuid: str) -> Reading | None:
    """Read clock, throttling, temperature and memory; None where the driver does not know the GPU at all."""
    handle = _answer(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    if handle is None:
        return None
    # Newer drivers say "event reasons"; every driver understands the older name.
    bits = _answer(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    memory = _memory(handle)
    return Reading(
        sm_clock_mhz=_answer(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        throttle=None if bits is None else frozenset(name for bit, name in THROTTLE_REASONS.items() if bits & bit),
        temperature_c=_answer(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        used_bytes=None if memory is None else int(memory.used),
    )


def uuid_of(handle: Any) -> str | None:
    """The driver's name of the GPU that a handle stands for, as ``GPU-…``."""
    found = _answer(pynvml.nvmlDeviceGetUUID, handle)
    return None if found is None else _text(found)


def slowdown_temperature(uuid: str) -> int | None:
    """The temperature in °C at which the GPU slows itself down."""
    degrees = _ask(uuid, pynvml.nvmlDeviceGetTemperatureThreshold, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    return None if degrees is None else int(degrees)


def max_sm_clock(uuid: str) -> int | None:
    """The highest SM clock in MHz."""
    clock = _ask(uuid, pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM)
    return None if clock is None else int(clock)


def utilization(uuid: str) -> int | None:
    """The percentage of the last moment (up to a second) in which any process ran kernels."""
    rates = _ask(uuid, pynvml.nvmlDeviceGetUtilizationRates)
    return None if rates is None else int(rates.gpu)


def persistence_mode(uuid: str) -> bool | None:
    """Whether the driver stays loaded while nobody uses the GPU."""
    state = _ask(uuid, pynvml.nvmlDeviceGetPersistenceMode)
    return None if state is None else bool(state)


def _memory(handle: Any) -> Any:
    # The second version tells apart what the driver keeps for itself; drivers before 510 lack it.
    # What is wrapped is the driver's own answer: a smaller card may be played to everyone else (``gpu.cap``).
    asked = inspect.unwrap(pynvml.nvmlDeviceGetMemoryInfo)
    second = _answer(asked, handle, pynvml.nvmlMemory_v2)
    return second or _answer(asked, handle)


def _ask(uuid: str, question: Callable[..., Any], *details: Any) -> Any:
    handle = _answer(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    return None if handle is None else _answer(question, handle, *details)


def _answer(question: Callable[..., Any], *details: Any) -> Any:
    """Return the driver's answer, or None where there is no driver or it does not tell."""
    if not _ready():
        return None
    try:
        return question(*details)
    except Exception:  # noqa: BLE001 - bindings also raise what is no NVMLError; what only watches fails no test
        return None


def _text(value: Any) -> str:
    # Older bindings return bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
