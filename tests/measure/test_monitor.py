"""What is read of a GPU that is not here."""

from __future__ import annotations

import pytest
import torch

from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.nvml import Reading
from pytest_loraperf.measure.monitor import Monitor

GB = 2**30
GPU = Device("cuda:0", "a card", 80 * GB, (9, 0), uuid="GPU-1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    uuids: list[str] = []

    def read(uuid: str) -> Reading:
        uuids.append(uuid)
        return Reading(sm_clock_mhz=1980, used_bytes=(40 + 10 * len(uuids)) * GB)

    monkeypatch.setattr(nvml, "read", read)
    monkeypatch.setattr(nvml, "process_bytes", lambda _: 30 * GB)
    monkeypatch.setattr(nvml, "slowdown_temperature", lambda _: 90)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 29 * GB)
    return uuids


def test_the_cpu_is_not_watched(asked: list[str]) -> None:
    monitor = Monitor(Device("cpu", "CPU"))
    assert (monitor(), monitor.unexplained, monitor.slowdown_temperature()) == (None, None, None)
    assert asked == []


def test_a_gpu_is_read_no_more_often_than_it_changes(asked: list[str]) -> None:
    now = iter([0.0, 0.05, 0.11])
    monitor = Monitor(GPU, lambda: next(now))
    readings = [monitor() for _ in range(3)]
    assert asked == ["GPU-1", "GPU-1"]
    assert readings[0] is readings[1] is not readings[2]


def test_a_clock_that_went_back_keeps_no_old_reading(asked: list[str]) -> None:
    now = iter([1000.0, 5.0, 5.05])
    monitor = Monitor(GPU, lambda: next(now))
    readings = [monitor() for _ in range(3)]
    assert len(asked) == 2
    assert readings[0] is not readings[1] is readings[2]


@pytest.mark.usefixtures("asked")
def test_the_most_that_others_held_is_kept() -> None:
    now = iter(range(9))
    monitor = Monitor(GPU, lambda: next(now))
    for _ in range(2):
        monitor()
    assert monitor.unexplained == 30 * GB
    assert monitor.slowdown_temperature() == 90


def test_a_driver_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "read", lambda _: None)
    monitor = Monitor(GPU)
    assert (monitor(), monitor.unexplained) == (None, None)
