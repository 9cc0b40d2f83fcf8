from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pynvml
import pytest

from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.nvml import Reading

UUID = "GPU-1"
GB = 2**30
ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetClockInfo": 1755,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetTemperatureThreshold": 90,
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * GB, used=20 * GB, free=60 * GB),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=5),
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetName": "NVIDIA H100",
    "nvmlDeviceGetComputeRunningProcesses": [
        SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=9 * GB),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GB),
    ],
}
ASKED: dict[Callable[[str], object], object] = {
    nvml.slowdown_temperature: 90,
    nvml.max_sm_clock: 1980,
    nvml.utilization: 37,
    nvml.persistence_mode: True,
    nvml.process_bytes: 3 * GB,
}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver that knows one GPU."""

    def handle(uuid: str) -> str:
        if uuid != UUID:
            raise pynvml.NVMLError_NotFound
        return "handle"

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda _: "handle")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: b"580.1")
    for name, value in ANSWERS.items():
        answer(monkeypatch, name, value)
    nvml._ready.cache_clear()
    yield
    nvml._ready.cache_clear()


def answer(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    def reply(handle: str, *_: object) -> object:
        assert handle == "handle"
        return value

    monkeypatch.setattr(pynvml, name, reply)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def reply(*_: object) -> NoReturn:
        raise pynvml.NVMLError_NotSupported

    monkeypatch.setattr(pynvml, name, reply)


def test_a_reading() -> None:
    assert nvml.read(UUID) == Reading(1755, frozenset(), 61, 20 * GB)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (pynvml.nvmlClocksThrottleReasonSwPowerCap, {"power cap"}),
        (pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown, {"power brake"}),
        (pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, {"thermal slowdown"}),
        (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, {"thermal slowdown"}),
        (pynvml.nvmlClocksThrottleReasonHwSlowdown | 0x4, {"hardware slowdown", "power cap"}),
        (pynvml.nvmlClocksThrottleReasonGpuIdle, set()),
        (pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting, set()),
        (pynvml.nvmlClocksThrottleReasonSyncBoost, set()),
        (pynvml.nvmlClocksThrottleReasonDisplayClockSetting, set()),
    ],
)
def test_throttle_reasons_have_names(monkeypatch: pytest.MonkeyPatch, bits: int, names: set[str]) -> None:
    answer(monkeypatch, "nvmlDeviceGetCurrentClocksThrottleReasons", bits)
    assert nvml.read(UUID) == Reading(1755, frozenset(names), 61, 20 * GB)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("nvmlDeviceGetClockInfo", Reading(None, frozenset(), 61, 20 * GB)),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", Reading(1755, None, 61, 20 * GB)),
        ("nvmlDeviceGetTemperature", Reading(1755, frozenset(), None, 20 * GB)),
        ("nvmlDeviceGetMemoryInfo", Reading(1755, frozenset(), 61, None)),
    ],
)
def test_what_the_driver_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch, name: str, left: Reading) -> None:
    refuse(monkeypatch, name)
    assert nvml.read(UUID) == left


@pytest.mark.parametrize(("ask", "value"), ASKED.items())
def test_what_else_is_asked(ask: Callable[[str], object], value: object) -> None:
    assert ask(UUID) == value


@pytest.mark.parametrize("ask", [*ASKED, nvml.read])
def test_an_unknown_gpu(ask: Callable[[str], object]) -> None:
    assert ask("GPU-2") is None


@pytest.mark.parametrize("ask", [*ASKED])
def test_a_driver_that_refuses(monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]) -> None:
    for name in ANSWERS:
        refuse(monkeypatch, name)
    assert ask(UUID) is None
    assert nvml.read(UUID) == Reading()


@pytest.mark.parametrize(
    "error", [OSError("no such library"), AttributeError("symbol"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "")]
)
@pytest.mark.parametrize("name", [*ANSWERS, "nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetCount"])
def test_bindings_that_raise_what_is_no_error_of_nvml(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def reply(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(pynvml, name, reply)
    for ask, value in ASKED.items():
        assert ask(UUID) in (value, None)
    nvml.read(UUID)
    assert nvml.device_names() in (["NVIDIA H100"], [])


def test_a_name_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "nvmlDeviceGetName", b"NVIDIA \xff")
    assert nvml.device_names() == ["NVIDIA \N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("ask", [*ASKED, nvml.read])
def test_no_driver(monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]) -> None:
    refuse(monkeypatch, "nvmlInit")
    assert ask(UUID) is None


def test_memory_of_an_old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_version_only(_: str, version: int | None = None) -> object:
        if version is not None:
            raise pynvml.NVMLError_FunctionNotFound
        return SimpleNamespace(used=21 * GB)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", first_version_only)
    found = nvml.read(UUID)
    assert found is not None
    assert found.used_bytes == 21 * GB


def test_a_process_that_the_driver_does_not_number_as_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "nvmlDeviceGetComputeRunningProcesses", [SimpleNamespace(pid=-1, usedGpuMemory=GB)])
    assert nvml.process_bytes(UUID) is None


def test_the_driver_and_its_gpus() -> None:
    assert (nvml.driver_version(), nvml.device_names()) == ("580.1", ["NVIDIA H100"])


@pytest.mark.parametrize("name", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName"])
def test_gpus_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    refuse(monkeypatch, name)
    refuse(monkeypatch, "nvmlSystemGetDriverVersion")
    assert (nvml.driver_version(), nvml.device_names()) == (None, [])
