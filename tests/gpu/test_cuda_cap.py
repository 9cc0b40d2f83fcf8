"""A small card played by this machine's own."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml
import pytest
import torch

from pytest_loraperf.gpu.cap import Cap
from pytest_loraperf.gpu.device import resolve_device
from pytest_loraperf.measure.memory import CudaMeter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SIZE = 4 * 2**30


@pytest.fixture
def cap() -> Iterator[Cap]:
    device = resolve_device("auto")
    played = Cap(device, SIZE, CudaMeter(device).overhead)
    played.enter()
    yield played
    played.close()


def test_the_context_counts(cap: Cap) -> None:
    assert 0 < cap.outside() < SIZE


@pytest.mark.usefixtures("cap")
def test_what_is_free_can_be_had_and_no_more() -> None:
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    assert total == SIZE == torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(free + 2**22, dtype=torch.uint8, device="cuda")
    held = torch.empty(free - 2**22, dtype=torch.uint8, device="cuda")
    assert torch.cuda.mem_get_info()[0] < 2**23
    del held
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] == pytest.approx(free, abs=2**23)


def test_nvml_tells_the_small_card(cap: Cap) -> None:
    handle = pynvml.nvmlDeviceGetHandleByUUID(cap.device.uuid)
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == SIZE
    assert pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).total == SIZE


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # inductor's own import
@pytest.mark.usefixtures("cap")
def test_kernels_run_on_it() -> None:
    a = torch.randn(512, 512, device="cuda", dtype=torch.bfloat16)
    compiled = torch.compile(lambda x: (x @ x).relu())
    assert torch.isfinite(compiled(a)).all()


def test_the_whole_card_comes_back() -> None:
    device = resolve_device("auto")
    cap = Cap(device, SIZE, CudaMeter(device).overhead)
    cap.enter()
    cap.close()
    assert torch.cuda.get_device_properties(0).total_memory == device.total
    torch.empty(SIZE, dtype=torch.uint8, device="cuda")
