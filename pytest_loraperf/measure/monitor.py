"""Watches the GPU while samples are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import torch

from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.nvml import Reading
from pytest_loraperf.measure.validity import unexplained_bytes

EVERY = 0.1
"""Seconds between readings at the least: what the GPU does changes no faster, and asking takes time."""


@dataclass
class Monitor:
    """Reads what the driver says of the GPU after each sample; None all along on the CPU.

    ``unexplained`` is the most memory in bytes that was in use and not this process's, None where it is not known.
    """

    device: Device
    clock: Callable[[], float] = perf_counter
    unexplained: int | None = None
    _last: tuple[float, Reading | None] | None = field(default=None, repr=False)

    def __call__(self) -> Reading | None:
        """Return what the GPU does now, or did a moment ago."""
        if not self.device.is_cuda or self.device.uuid is None:
            return None
        now = self.clock()
        # A clock that went back must not keep an old reading for the newest.
        if self._last is None or not 0 <= now - self._last[0] < EVERY:
            reading = nvml.read(self.device.uuid)
            self._last = (now, reading)
            if reading is not None and reading.used_bytes is not None:
                held, reserved = (
                    nvml.process_bytes(self.device.uuid),
                    torch.cuda.memory_reserved(self.device.index),
                )
                found = unexplained_bytes(reading.used_bytes, held, reserved)
                self.unexplained = max(self.unexplained or 0, found)
        return self._last[1]

    def slowdown_temperature(self) -> int | None:
        """The temperature in °C at which the GPU slows itself down, where the driver tells."""
        return nvml.slowdown_temperature(self.device.uuid) if self.device.uuid else None
