from __future__ import annotations

import types
from typing import NoReturn

import pynvml
import pytest
import torch

from pytest_loraperf.errors import DeviceError
from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device, resolve_device
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.specs import Gates, NeedsGpu

H100 = Device("cuda:0", "NVIDIA H100", 80 * 2**30, (9, 0), "580.1")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(nvml, "device_names", list)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("no_cuda")
def test_auto_without_a_gpu_is_the_cpu() -> None:
    assert resolve_device("auto") == Device("cpu", "CPU")
    assert not resolve_device("cpu").is_cuda


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("wanted", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu(wanted: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{wanted}': no CUDA device here; use --loraperf-device=cpu"):
        resolve_device(wanted)


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "", "cpu:0"])
def test_names_that_are_no_device(wanted: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{wanted}': allowed are auto, cpu, cuda and cuda:N"):
        resolve_device(wanted)


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    def broken() -> NoReturn:
        raise RuntimeError("The NVIDIA driver on your system is too old\nmore")

    monkeypatch.setattr(nvml, "device_names", lambda: ["NVIDIA H100"])
    monkeypatch.setattr(torch.cuda, "init", broken)
    with pytest.raises(DeviceError) as caught:
        resolve_device(wanted)
    assert str(caught.value) == (
        "a GPU is here (NVIDIA H100) but torch cannot use it: The NVIDIA driver on your system is too old; "
        "mend it, or run on the CPU with --loraperf-device=cpu"
    )


@pytest.mark.usefixtures("no_cuda")
def test_a_gpu_and_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "device_names", lambda: ["NVIDIA H100"])
    monkeypatch.setattr(torch, "version", types.SimpleNamespace(cuda=None))
    with pytest.raises(DeviceError, match=r"a GPU is here \(NVIDIA H100\) but torch .* is built without CUDA"):
        resolve_device("auto")


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_the_user_hid_is_no_error(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setattr(nvml, "device_names", lambda: ["NVIDIA H100"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert resolve_device("auto").torch_name == "cpu"


def test_cuda_that_fails_when_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> NoReturn:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    with pytest.raises(DeviceError, match="CUDA is present but does not work: CUDA error: out of memory; mend it"):
        resolve_device("cuda")
    with pytest.raises(DeviceError, match="device cuda:3: there are 1 CUDA devices; the last is cuda:0"):
        resolve_device("cuda:3")


def test_nvml_without_a_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> NoReturn:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    nvml._ready.cache_clear()
    assert (nvml.driver_version(), nvml.device_names(), nvml.process_bytes("GPU-0")) == (None, [], None)
    nvml._ready.cache_clear()


@pytest.mark.parametrize(("capability", "has"), [((8, 6), False), ((8, 9), True), ((9, 0), True), (None, False)])
def test_fp8_products_need_ada_or_later(capability: tuple[int, int] | None, has: bool) -> None:
    assert Device("cuda:0", "GPU", 1, capability).has_fp8_matmul is has


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (NeedsGpu(None, None), None),
        (NeedsGpu(80 * 2**30, (9, 0)), None),
        (NeedsGpu(96 * 2**30, None), "needs_gpu: NVIDIA H100 has 80 GB of VRAM, the test needs 96 GB"),
        (NeedsGpu(None, (10, 0)), "needs_gpu: NVIDIA H100 has compute capability 9.0, the test needs 10.0"),
    ],
)
def test_needs_gpu_on_a_card(needs: NeedsGpu, reason: str | None) -> None:
    session = Session(Settings())
    session.__dict__["device"] = H100
    assert session.why_not(Gates(needs=(needs,))) == reason


@pytest.mark.parametrize(("total", "size"), [(80, "full"), (44, "full"), (24, "tiny"), (0, "tiny")])
def test_auto_model_is_the_full_one_where_it_fits(total: int, size: str) -> None:
    session = Session(Settings())
    session.__dict__["device"] = Device("cuda:0" if total else "cpu", "GPU", total * 2**30)
    assert str(session.model()) == f"synthetic:{size}"
    assert session.request().height == (1024 if size == "full" else 64)
