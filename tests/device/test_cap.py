"""A small card played by a larger one, on a driver that is made up."""

from __future__ import annotations

from ctypes import Structure, c_ulonglong
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from pytest_loraperf.errors import DeviceError
from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.cap import Cap
from pytest_loraperf.gpu.device import Device

GB = 2**30
CARD = Device("cuda:0", "A card", 80 * GB, (9, 0), "580", "GPU-a")


class Memory(Structure):
    """What the driver answers, as ``c_nvmlMemory_t``."""

    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


@dataclass
class Driver:
    """A GPU of 80 GB: 2 GB are someone else's, and torch holds ``reserved``, ``live`` of it in tensors."""

    reserved: int = 3 * GB
    live: int = 2 * GB
    context: int = GB
    told: bool = True
    fractions: list[float] = field(default_factory=list)

    @property
    def free(self) -> int:
        return 80 * GB - 2 * GB - self.context - self.reserved

    def overhead(self) -> int:
        return self.context if self.told else 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    info = lambda *_, **__: (made.free, 80 * GB)  # noqa: E731 - one of many
    for target, name, replacement in (
        (torch.cuda, "mem_get_info", info),
        (torch.cuda.memory, "mem_get_info", info),
        (torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(name="A card", total_memory=80 * GB)),
        (torch.cuda, "memory_reserved", lambda _: made.reserved),
        (torch.cuda, "memory_allocated", lambda _: made.live),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "set_per_process_memory_fraction", lambda share, _: made.fractions.append(share)),
        (pynvml, "nvmlDeviceGetMemoryInfo", lambda *_: Memory(80 * GB, made.free, 80 * GB - made.free)),
        (nvml, "uuid_of", lambda handle: handle),
        (nvml, "_ready", lambda: True),
    ):
        monkeypatch.setattr(target, name, replacement)
    return made


@pytest.fixture
def cap(driver: Driver) -> Any:
    played = Cap(CARD, 14 * GB, driver.overhead)
    played.enter()
    yield played
    played.close()


def test_torch_may_have_what_the_context_leaves(cap: Cap, driver: Driver) -> None:
    assert driver.fractions == [pytest.approx(13 / 80)]
    driver.context = 2 * GB
    cap.adjust()
    assert driver.fractions[-1] == pytest.approx(12 / 80)


@pytest.mark.usefixtures("cap")
def test_frameworks_are_told_of_the_small_card() -> None:
    left = (14 - 1 - 3) * GB
    assert torch.cuda.mem_get_info() == (left, 14 * GB)
    assert torch.cuda.mem_get_info(torch.device("cuda")) == (left, 14 * GB)
    assert torch.cuda.memory.mem_get_info("cuda:0") == (left, 14 * GB)
    properties = torch.cuda.get_device_properties(0)
    assert (properties.total_memory, properties.name) == (14 * GB, "A card")
    told = pynvml.nvmlDeviceGetMemoryInfo("GPU-a")
    assert (told.total, told.free, told.used) == (14 * GB, left, 4 * GB)


@pytest.mark.usefixtures("cap")
def test_no_more_is_free_than_really_is(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "free", GB)
    assert torch.cuda.mem_get_info()[0] == GB
    monkeypatch.setattr(Driver, "free", 70 * GB)
    driver.reserved = 20 * GB
    assert torch.cuda.mem_get_info()[0] == 0


@pytest.mark.usefixtures("cap")
def test_another_gpu_is_as_it_is(driver: Driver) -> None:
    assert torch.cuda.mem_get_info(1) == (driver.free, 80 * GB)
    assert torch.cuda.get_device_properties("cuda:1").total_memory == 80 * GB
    assert pynvml.nvmlDeviceGetMemoryInfo("GPU-b").total == 80 * GB


@pytest.mark.usefixtures("cap")
def test_our_own_look_at_the_driver_sees_the_whole_card() -> None:
    assert pynvml.nvmlDeviceGetMemoryInfo("GPU-a").total == 14 * GB
    assert nvml._memory("GPU-a").total == 80 * GB


def test_the_whole_card_is_given_back(driver: Driver) -> None:
    cap = Cap(CARD, 14 * GB, driver.overhead)
    cap.enter()
    cap.close()
    assert driver.fractions[-1] == 1.0
    assert torch.cuda.mem_get_info() == (driver.free, 80 * GB)
    assert torch.cuda.get_device_properties(0).total_memory == 80 * GB
    assert pynvml.nvmlDeviceGetMemoryInfo("GPU-a").total == 80 * GB


def test_where_the_driver_tells_nothing_all_that_torch_did_not_reserve_counts(driver: Driver) -> None:
    driver.told = False
    cap = Cap(CARD, 14 * GB, driver.overhead)
    cap.enter()
    assert cap.outside() == 3 * GB  # the context, and what is someone else's
    cap.close()


def test_what_holds_the_card_is_told(cap: Cap) -> None:
    assert cap.parts() == {
        "live tensors": 2 * GB,
        "reserved, not in use": GB,
        "context and libraries": GB,
        "card": 14 * GB,
    }


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (100 * GB, "a card of 100 GB cannot be played by a smaller one: A card has 80 GB; lower --gpu-budget"),
        (
            GB // 2,
            "a card of 512 MB has no room for tensors: the CUDA context and libraries alone take 1 GB here; "
            "raise --gpu-budget",
        ),
    ],
)
def test_a_card_that_cannot_be_played(driver: Driver, size: int, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        Cap(CARD, size, driver.overhead).enter()
    assert str(caught.value) == message
    assert driver.fractions == []
    assert torch.cuda.get_device_properties(0).total_memory == 80 * GB
