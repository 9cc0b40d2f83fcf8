from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from pytest_loraperf.gpu.device import Device
from pytest_loraperf.measure.ledger import Charge, Ledger, Peak
from pytest_loraperf.measure.memory import TensorBytes, meter_for

KB = 1024


def tensor(kilobytes: int) -> torch.Tensor:
    return torch.zeros(kilobytes * KB // 4)


def test_each_storage_counts_once_until_it_dies() -> None:
    meter = TensorBytes()
    with meter.watching():
        first = tensor(4)
        view = first[:10]
        assert meter.level() == 4 * KB
        second = first + 1
        assert meter.level() == 8 * KB
        del first
        assert meter.level() == 8 * KB  # the view holds it
        del view, second
    assert (meter.level(), meter.peak()) == (0, 8 * KB)


def test_tensors_from_before_are_seen_when_they_are_used() -> None:
    before, meter = tensor(4), TensorBytes()
    with meter.watching():
        assert meter.level() == 0
        before.sum()
        assert meter.level() >= 4 * KB


def test_the_peak_restarts_from_the_level() -> None:
    meter = TensorBytes()
    with meter.watching(), meter.watching():
        kept = tensor(4)
        tensor(16)
    assert meter.peak() == 20 * KB
    meter.reset_peak()
    assert meter.peak() == 4 * KB
    del kept


def test_the_cpu_counts_tensor_bytes() -> None:
    assert meter_for(Device("cpu", "CPU")).kind == "tensor bytes"


def test_an_operation_is_charged_its_own_memory_alone() -> None:
    ledger, peak = Ledger(TensorBytes()), Peak()
    held = {}
    with ledger.operation("a", Peak()):
        held["a"] = tensor(100)
    with ledger.operation("b", peak):
        held["b"] = tensor(8)
        tensor(16)
    assert peak.needed == peak.allocated == 24 * KB
    assert ledger.resident == {"a": 100 * KB, "b": 8 * KB}


def test_a_test_is_charged_all_but_the_pipelines_of_others() -> None:
    ledger, charge = Ledger(TensorBytes()), Charge()
    held = {}
    with ledger.operation("earlier", Peak()):
        held["earlier"] = tensor(100)
    with ledger.test_phase(charge, "setup"):
        held["users"] = tensor(4)
        with ledger.operation("mine", Peak()):
            held["mine"] = tensor(8)
            tensor(16)
    assert charge.phases == {"setup": 28 * KB}
    with ledger.test_phase(charge, "runtime"):
        tensor(2)
    # What the test's fixtures hold is still there; its pipeline was charged when it was built.
    assert charge.phases["runtime"] == 6 * KB
    assert charge.peak == (28 * KB, "setup")


def test_what_is_forgotten_is_charged_no_more() -> None:
    ledger, charge = Ledger(TensorBytes()), Charge()
    held = {}
    with ledger.operation("a", Peak()):
        held["a"] = tensor(100)
    with ledger.release("a"):
        held.clear()
    with ledger.test_phase(charge, "runtime"):
        tensor(1)
    assert charge.peak == (1 * KB, "runtime")


def test_what_measuring_uses_is_charged_to_no_test() -> None:
    ledger, charge = Ledger(TensorBytes()), Charge()
    kept = []
    with ledger.test_phase(charge, "setup"):
        tensor(4)
        with ledger.aside("probe"):
            kept.append(tensor(100))
            tensor(200)
        tensor(2)
    assert charge.phases == {"setup": 4 * KB}


def test_nothing_used_is_no_charge() -> None:
    assert Charge().peak == (0, "runtime")


class Segments:
    """A device that gives memory out in segments: a tensor may lie in the gap that another's segment has."""

    kind = "VRAM"

    def __init__(self) -> None:
        self.reserved = self.live = self.top = self.live_top = 0

    def reserved_now(self) -> int:
        return self.reserved

    def hold(self, reserved: int, live: int) -> None:
        self.reserved += reserved
        self.live += live
        self.top, self.live_top = max(self.top, self.reserved), max(self.live_top, self.live)

    def watching(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reset_peak(self) -> None:
        self.top, self.live_top = self.reserved, self.live

    def level(self) -> int:
        return self.reserved

    def peak(self) -> int:
        return self.top

    def allocated(self) -> int:
        return self.live

    def allocated_peak(self) -> int:
        return self.live_top

    def free(self) -> int:
        return 100 - self.reserved

    def overhead(self) -> int:
        return 1


class TestGapsInSegments:
    @pytest.fixture
    def device(self) -> Segments:
        return Segments()

    @pytest.fixture
    def ledger(self, device: Segments) -> Ledger:
        ledger = Ledger(device)
        with ledger.operation("first", Peak()):
            device.hold(reserved=24, live=20)
        return ledger

    def test_an_arm_that_fills_them_needs_its_tensors_all_the_same(self, ledger: Ledger, device: Segments) -> None:
        peak, charge = Peak(), Charge()
        with ledger.test_phase(charge, "setup"), ledger.operation("second", peak):
            device.hold(reserved=16, live=20)
        assert (peak.needed, peak.allocated, peak.resident) == (21, 20, 21)
        assert charge.phases == {"setup": 21}

    def test_what_is_left_of_a_released_arm_is_charged_to_no_test(self, ledger: Ledger, device: Segments) -> None:
        with ledger.operation("second", Peak()):
            device.hold(reserved=16, live=20)
        with ledger.release("first"):
            device.hold(reserved=-20, live=-20)  # 4 stay, for the second lies in them
        charge = Charge()
        with ledger.test_phase(charge, "runtime"):
            device.hold(reserved=3, live=3)
        assert charge.phases == {"runtime": 4}
        with ledger.release("second"):
            device.hold(reserved=-20, live=-20)
        with ledger.test_phase(after := Charge(), "runtime"):
            device.hold(reserved=3, live=3)
        assert after.phases == {"runtime": 7}  # what the test before still holds, too
