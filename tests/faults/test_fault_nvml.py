"""NVML that stops answering: verdicts are as before, and it is said that nothing was watched."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import AFTER, BEFORE, FAILED, FAULTED, JSON, PASSED, SLOW, Ended, Project, verdicts

# A device that says that it is a GPU, on which nothing is launched, and a driver that answers until it is gone.
CARD = """
    import sys
    from types import SimpleNamespace
    import pynvml
    import torch
    from conftest import *
    from pytest_loraperf.gpu import nvml
    from pytest_loraperf.gpu.device import Device
    from pytest_loraperf.session import Session

    GB = 2**30
    GONE = []

    def answers(value):
        def answer(*_):
            if GONE:
                raise GONE[0]
            return value
        return answer

    pynvml.nvmlInit = lambda: None
    pynvml.nvmlShutdown = lambda: None
    nvml._ready.cache_clear()
    mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GB)
    for name, value in {
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * GB, used=3 * GB),
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetTemperature": 60,
        "nvmlDeviceGetTemperatureThreshold": 90,
        "nvmlDeviceGetComputeRunningProcesses": [mine],
    }.items():
        setattr(pynvml, name, answers(value))
    Device.is_cuda = property(lambda self: self.uuid is not None)
    Device.synchronize = lambda _: None
    Device.gpu_mark = None
    Session.device = Device("cpu", "a card", 80 * GB, uuid="GPU-1")
    Session.lock = property(lambda self: lock.DeviceLock("cpu", print, print))
    for name, value in {"memory_reserved": 2 * GB, "max_memory_reserved": 2 * GB, "memory_allocated": GB}.items():
        setattr(torch.cuda, name, lambda *_, value=value: value)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, lambda *_: None)
    import pytest_loraperf.measure.monitor
    pytest_loraperf.measure.monitor.EVERY = 0.0
"""
GONE = "sys.modules['card'].GONE.append(__import__('pynvml').NVMLError({code}))"
KINDS = {"GpuIsLost": 15, "LibraryNotFound": 12, "Uninitialized": 1, "Unknown": 999}
TOLD = "the verdicts are as with it; one line says what was not watched"


def run(path: Path, kind: str, when: str, suite: str | None = None) -> tuple[Project, Ended]:
    project = Project(path, GONE.format(code=KINDS[kind]))
    if suite is not None:
        (path / "test_suite.py").write_text(suite, encoding="utf-8")
    (path / "card.py").write_text("\n".join(line[4:] for line in CARD.splitlines()), encoding="utf-8")
    conftest = path / "conftest.py"
    conftest.write_text(
        conftest.read_text().replace("class Clock", "import sys\n\nclass Clock") + "\nfrom card import GONE\n"
    )
    return project, project.run(JSON, when=when)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.fault("NVML vanishes", "measuring", TOLD)
def test_it_vanishes_in_a_round(tmp_path: Path, kind: str) -> None:
    project, ended = run(tmp_path, kind, "a round")
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said(
        "validity: NVML said nothing in the last 7 of 9 rounds of faulted: throttling, clocks, heat and neighbours were not "
        "watched there; look whether the GPU or its driver fell out (dmesg, nvidia-smi)",
        "validity: NVML is not available: throttling*",
        "*1 failed, 3 passed*",
    )
    project.check_locks_are_free()
    assert verdicts(project.results) == {SLOW: [FAILED], BEFORE: [PASSED], FAULTED: [PASSED], AFTER: [PASSED]}


@pytest.mark.fault("NVML vanishes", "set-up of a test", TOLD)
def test_it_vanishes_between_tests(tmp_path: Path) -> None:
    project, ended = run(tmp_path, "GpuIsLost", "set-up")
    ended.check_said("validity: NVML is not available: throttling*", "*1 failed, 3 passed*")
    assert verdicts(project.results) == {SLOW: [FAILED], BEFORE: [PASSED], FAULTED: [PASSED], AFTER: [PASSED]}


BUDGET = """
import pytest
from conftest import reach

@pytest.mark.vram_budget("2.5GB")
@pytest.mark.parametrize("name", ["before", "faulted", "after"])
def test_it(name):
    if name == "faulted":
        reach("a test with a budget")
"""


@pytest.mark.fault(
    "NVML vanishes",
    "a test with a VRAM budget",
    "what the process holds besides tensors stays what the driver said last",
)
def test_no_test_becomes_smaller_without_it(tmp_path: Path) -> None:
    project, ended = run(tmp_path, "GpuIsLost", "a test with a budget", BUDGET)
    ended.check_said("*3 failed*")
    assert verdicts(project.results) == {name: [("vram", "FAIL")] for name in (BEFORE, FAULTED, AFTER)}
