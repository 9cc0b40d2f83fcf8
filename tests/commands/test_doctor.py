from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from pytest_loraperf.cli import main
from pytest_loraperf.commands import doctor
from pytest_loraperf.commands.doctor import Check, Gpu, Probe, diagnose, examine, lines, probe
from pytest_loraperf.errors import DeviceError
from pytest_loraperf.gpu import device as devices
from pytest_loraperf.gpu import nvml
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.nvml import Reading
from pytest_loraperf.host import Host
from pytest_loraperf.limits import Rates

GB = 2**30
H100 = Device("cuda:0", "NVIDIA H100", 80 * GB, (9, 0), "580.1")
VERSIONS = {
    "Python": "3.12.4",
    "torch": "2.8.0",
    "diffsynth": "2.1.0",
    "diffusers": "0.42.1",
    "peft": "0.19.0",
    "transformers": "5.1.0",
    "accelerate": "1.12.0",
    "torchao": "0.17.0",
    "pytest": "9.0.0",
    "pytest-loraperf": "0.1.0",
}
GPU = Gpu(Reading(345, frozenset(), 35, GB // 2), GB // 2, 0, 1980, 90, persistence=True)
HOST = Host(memory=120 * GB, cpus=16, usable=16, load=0.5, governor="performance")
GOOD = Probe(H100, "580.1", VERSIONS, None, GPU, HOST)
NEIGHBOURS = (
    "stop them (nvidia-smi on the host lists them) or measure on another GPU (CUDA_VISIBLE_DEVICES names it)"
)
ALL_WELL = [
    Check("device", "ok", "cuda:0 NVIDIA H100, 80 GB of VRAM, compute capability 9.0"),
    Check("driver", "ok", "580.1"),
    Check(
        "versions",
        "ok",
        "Python 3.12.4, torch 2.8.0, diffsynth 2.1.0, diffusers 0.42.1, peft 0.19.0, transformers 5.1.0, "
        "accelerate 1.12.0, torchao 0.17.0, pytest 9.0.0, pytest-loraperf 0.1.0",
    ),
    Check(
        "backends",
        "ok",
        "diffsynth (diffsynth 2.1.0): builds qwen-image, flux, wan, z-image; "
        "quantizes by fp8_storage, fp8_compute, torchao_fp8_w8a8; offloads by stream, diffsynth",
    ),
    Check(
        "backends",
        "ok",
        "diffsynth1 is not there: diffsynth 2.1.0 is installed, and it is for 1.x",
        "in an environment of its own, pip install 'pytest-loraperf[diffsynth1]'",
    ),
    Check(
        "backends",
        "ok",
        "diffusers (diffusers 0.42.1): builds qwen-image, flux; quantizes by fp8_storage, torchao_fp8_w8a8; "
        "offloads by group",
    ),
    Check("fp8", "ok", "fp8 matrix products run on this GPU"),
    Check("neighbours", "ok", "512 MB of VRAM in use by others and the driver"),
    Check("clocks", "ok", "SM clock 345 MHz, at most 1980 MHz, 35 °C"),
    Check("memory", "ok", "120 GB available for pinning"),
    Check("limits", "ok", "memory unlimited, CPU time unlimited, 16 of 16 CPUs usable"),
]


def news(found: Probe) -> list[Check]:
    """The checks that are not those of a machine where all is well."""
    return [check for check in diagnose(found) if check not in ALL_WELL]


def test_a_machine_where_all_is_well() -> None:
    assert diagnose(GOOD) == ALL_WELL


def test_no_gpu() -> None:
    found = replace(GOOD, device=Device("cpu", "CPU"), driver=None, gpu=Gpu())
    assert news(found) == [
        Check(
            "device",
            "warn",
            "CPU: without CUDA the tiny model stands in, and sizes are counted tensor bytes",
            "for figures that count, measure on a machine with an NVIDIA GPU",
        )
    ]
    assert [check.topic for check in diagnose(found)] == [
        "device",
        "versions",
        *["backends"] * 3,
        "memory",
        "limits",
    ]


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (
            "CUDA is present but does not work: no memory; mend it, or run with --loraperf-device=cpu",
            Check(
                "device",
                "problem",
                "CUDA is present but does not work: no memory",
                "mend it, or run with --loraperf-device=cpu",
            ),
        ),
        (
            "device 'gpu': allowed are auto, cpu, cuda and cuda:N",
            Check("device", "problem", "device 'gpu': allowed are auto, cpu, cuda and cuda:N"),
        ),
    ],
)
def test_a_device_that_cannot_be_used(error: str, check: Check) -> None:
    assert news(replace(GOOD, device=error, gpu=Gpu())) == [check]


def test_a_card_too_small_for_the_full_model() -> None:
    small = replace(H100, name="NVIDIA L4", total=24 * GB, capability=(8, 9))
    assert news(replace(GOOD, device=small)) == [
        Check("device", "ok", "cuda:0 NVIDIA L4, 24 GB of VRAM, compute capability 8.9"),
        Check(
            "device",
            "warn",
            "the full synthetic model needs 44 GB: the tiny one stands in",
            "name a model that fits with --loraperf-model, or measure on a larger card",
        ),
    ]


def test_a_card_without_fp8() -> None:
    a100 = replace(H100, name="NVIDIA A100", capability=(8, 0))
    assert news(replace(GOOD, device=a100))[1:] == [
        Check(
            "fp8",
            "warn",
            "no fp8 matrix products (compute capability 8.9 and later have them): quantizing is fp8_storage",
            "expect quantizing to save VRAM and no time here",
        )
    ]


def test_no_nvml() -> None:
    assert news(replace(GOOD, driver=None, gpu=Gpu())) == [
        Check(
            "driver",
            "warn",
            "NVML is not available: throttling, clocks, heat and neighbours are not watched",
            "install the driver's libnvidia-ml.so, or show it to the container "
            "(NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
        )
    ]


def test_a_driver_that_tells_nothing_of_the_gpu() -> None:
    assert news(replace(GOOD, gpu=Gpu())) == [
        Check(
            "clocks",
            "warn",
            "the driver tells nothing of this GPU's clocks, heat and neighbours",
            "measure on a whole GPU (MIG instances and virtual GPUs tell less)",
        )
    ]


BARE = dict.fromkeys(("diffsynth", "diffusers", "peft", "transformers", "accelerate"))


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        (
            BARE,
            [
                Check(
                    "backends",
                    "ok",
                    "diffsynth1 is not there: diffsynth is not installed",
                    "pip install 'pytest-loraperf[diffsynth1]'",
                ),
                Check(
                    "backends",
                    "ok",
                    "diffusers is not there: diffusers, peft, transformers, accelerate are not installed",
                    "pip install 'pytest-loraperf[diffusers]'",
                ),
                Check(
                    "backends",
                    "problem",
                    "diffsynth is not installed: no strategy can be built",
                    "pip install 'pytest-loraperf[diffsynth]'",
                ),
            ],
        ),
        (
            {"diffsynth": None},
            [
                Check(
                    "backends",
                    "ok",
                    "diffsynth1 is not there: diffsynth is not installed",
                    "pip install 'pytest-loraperf[diffsynth1]'",
                ),
                Check(
                    "backends",
                    "warn",
                    "diffsynth is not installed: the default backend diffsynth cannot be used",
                    "use --loraperf-backend=diffusers, or pip install 'pytest-loraperf[diffsynth]'",
                ),
            ],
        ),
        (
            {"diffsynth": "1.1.9"},
            [
                Check(
                    "backends",
                    "ok",
                    "diffsynth1 (diffsynth 1.1.9): builds qwen-image; quantizes by fp8_storage, fp8_compute, "
                    "fp8_loaded; offloads by diffsynth",
                ),
                Check(
                    "backends",
                    "warn",
                    "diffsynth 1.1.9 is installed, and it is for 2.x: the default backend diffsynth cannot be used",
                    "use --loraperf-backend=diffsynth1, or in an environment of its own, "
                    "pip install 'pytest-loraperf[diffsynth]'",
                ),
            ],
        ),
        (
            {"peft": None},
            [
                Check(
                    "backends",
                    "ok",
                    "diffusers is not there: peft is not installed",
                    "pip install 'pytest-loraperf[diffusers]'",
                )
            ],
        ),
    ],
)
def test_the_backends_whose_packages_lack(changes: dict[str, str | None], checks: list[Check]) -> None:
    assert news(replace(GOOD, versions=VERSIONS | changes))[1:] == checks


@pytest.mark.parametrize(
    ("package", "check"),
    [
        (
            "torchao",
            Check(
                "versions",
                "warn",
                "torchao is not installed: quantizing is fp8_storage, which saves VRAM and no time",
                "pip install 'pytest-loraperf[torchao]'",
            ),
        ),
    ],
)
def test_a_missing_package(package: str, check: Check) -> None:
    assert news(replace(GOOD, versions=VERSIONS | {package: None}))[1:] == [check]


def test_torchao_that_does_not_import() -> None:
    why = "torchao is not usable (no such symbol); pip install 'pytest-loraperf[torchao]'"
    assert news(replace(GOOD, no_torchao=why)) == [
        Check(
            "versions",
            "warn",
            "torchao is not usable (no such symbol)",
            "pip install 'pytest-loraperf[torchao]'",
        )
    ]


@pytest.mark.parametrize(
    ("gpu", "checks"),
    [
        (
            replace(GPU, unexplained=30 * GB),
            [Check("neighbours", "warn", "30 GB of VRAM in use by others and the driver", NEIGHBOURS)],
        ),
        (
            replace(GPU, utilization=37),
            [Check("neighbours", "warn", "kernels of others ran in 37 % of the last moment", NEIGHBOURS)],
        ),
        (replace(GPU, utilization=10), []),
        (replace(GPU, unexplained=None, utilization=None, slowdown_c=None, persistence=None), []),
        (
            replace(GPU, reading=Reading(345, frozenset({"power cap"}), 35)),
            [
                Check(
                    "clocks",
                    "warn",
                    "the GPU is slowed down: power cap",
                    "lock the SM clock where the power suffices (nvidia-smi -lgc MHZ, as root)",
                )
            ],
        ),
        (
            replace(GPU, reading=Reading(345, frozenset(), 85)),
            [
                Check("clocks", "ok", "SM clock 345 MHz, at most 1980 MHz, 85 °C"),
                Check(
                    "clocks",
                    "warn",
                    "85 °C, and the GPU slows itself down at 90 °C",
                    "improve its cooling, or let it cool down first",
                ),
            ],
        ),
        (
            replace(GPU, persistence=False),
            [
                Check(
                    "clocks",
                    "warn",
                    "persistence mode is off: the driver unloads between runs and forgets clocks that were locked",
                    "nvidia-smi -pm 1, as root",
                )
            ],
        ),
        (Gpu(Reading()), [Check("clocks", "ok", "not told by the driver")]),
    ],
)
def test_what_nvml_says(gpu: Gpu, checks: list[Check]) -> None:
    assert news(replace(GOOD, gpu=gpu)) == checks


@pytest.mark.parametrize(
    ("host", "checks"),
    [
        (
            replace(HOST, memory=31 * GB),
            [
                Check(
                    "memory",
                    "warn",
                    "31 GB available for pinning; offloading a full model may take 40 GB: its weights, and again pinned",
                    "free host memory or raise the container's limit before measuring low_vram at full size",
                )
            ],
        ),
        (
            replace(HOST, memory_limit=64 * GB, usable=4),
            [
                Check("memory", "ok", "64 GB available for pinning"),
                Check("limits", "ok", "memory 64 GB, CPU time unlimited, 4 of 16 CPUs usable"),
            ],
        ),
        (replace(HOST, memory=None), []),
        (
            replace(HOST, cpu_quota=2.5),
            [
                Check("limits", "ok", "memory unlimited, CPU time 2.5 CPUs, 16 of 16 CPUs usable"),
                Check(
                    "limits",
                    "warn",
                    "the quota of 2.5 CPUs is below the 16 that threads are started for: they are halted in turns",
                    "set OMP_NUM_THREADS=2, or raise the container's CPU quota",
                ),
            ],
        ),
        (
            replace(HOST, cpu_quota=16.0),
            [Check("limits", "ok", "memory unlimited, CPU time 16 CPUs, 16 of 16 CPUs usable")],
        ),
        (
            replace(HOST, load=20.25),
            [
                Check(
                    "cpu",
                    "warn",
                    "load average 20.2 on 16 CPUs: launching kernels has to wait its turn",
                    "stop what else runs on this machine (on its host too, where this is a container)",
                )
            ],
        ),
        (replace(HOST, load=16.0, governor=None), []),
        (
            replace(HOST, governor="powersave"),
            [
                Check(
                    "cpu",
                    "warn",
                    "the CPU frequency governor is powersave: launch times vary with the CPU's clock",
                    "cpupower frequency-set -g performance, as root",
                )
            ],
        ),
    ],
)
def test_the_host(host: Host, checks: list[Check]) -> None:
    assert news(replace(GOOD, host=host)) == checks


def test_this_machine_on_the_cpu() -> None:
    found = probe("cpu")
    assert found.device == Device("cpu", "CPU")
    assert found.gpu == Gpu()
    assert found.versions["torch"]
    assert [check.topic for check in examine("cpu")][:2] == ["device", "versions"]


def test_a_broken_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(wanted: str) -> Device:
        raise DeviceError(f"device {wanted!r}: broken; mend it")

    monkeypatch.setattr(devices, "resolve_device", broken)
    assert examine("cuda")[0] == Check("device", "problem", "device 'cuda': broken", "mend it")


@pytest.mark.parametrize(("held", "unexplained"), [(2 * GB, 3 * GB), (None, 3 * GB)])
def test_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch, held: int | None, unexplained: int) -> None:
    reading = Reading(345, frozenset(), 35, 5 * GB)
    card = replace(H100, uuid="GPU-1")
    monkeypatch.setattr(devices, "resolve_device", lambda _: card)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: GB)
    answers = {
        "driver_version": "580.1",
        "utilization": 0,
        "max_sm_clock": 1980,
        "slowdown_temperature": 90,
        "persistence_mode": True,
    }
    for name, value in answers.items():
        monkeypatch.setattr(nvml, name, lambda *_, value=value: value)
    monkeypatch.setattr(nvml, "read", {"GPU-1": reading}.get)
    monkeypatch.setattr(nvml, "process_bytes", lambda _: held)
    found = probe("auto")
    assert (found.device, found.driver) == (card, "580.1")
    assert found.gpu == Gpu(reading, unexplained, 0, 1980, 90, persistence=True)


def test_a_torch_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_loraperf.gpu.device", None)
    check = examine()[0]
    assert (check.topic, check.status, check.advice) == ("device", "problem", "install it again")
    assert check.found.startswith("torch cannot be imported: import of pytest_loraperf.gpu.device halted")


def test_a_package_that_is_not_installed() -> None:
    assert doctor._version("no-such-package-of-ours") is None
    assert doctor._why_no_torchao(VERSIONS | {"torchao": None}) is None


def test_rates_are_told_where_they_are_asked_for() -> None:
    rates = Rates(operations={"bfloat16": 712e12, "float8_e4m3fn": 1321e12}, bytes=2.5 * 2**40, bus_bytes=51 * GB)
    assert news(replace(GOOD, rates=rates)) == [
        Check(
            "rates",
            "ok",
            "712 TFLOP/s in bfloat16, 1321 TFLOP/s in float8_e4m3fn, 2.5 TB/s of device memory, "
            "51 GB/s from pinned host memory",
        )
    ]
    assert news(replace(GOOD, rates="the card is full")) == [
        Check(
            "rates",
            "warn",
            "cannot be measured: the card is full",
            "see what else uses the device, and ask again",
        )
    ]


def test_the_cpu_is_measured_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu", "--rates"]) in (0, 1)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "rates")
    assert re.search(r"^ok +rates +[0-9.]+ [GT]FLOP/s in bfloat16, [0-9.]+ GB/s of device memory$", line)
    assert probe("cpu").rates is None


def test_rates_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("the card is full")

    monkeypatch.setattr(torch, "mm", full)
    assert probe("cpu", rates=True).rates == "OutOfMemoryError: the card is full"


def test_lines_are_aligned_and_wrapped() -> None:
    checks = [
        Check("device", "ok", "cuda:0 NVIDIA H100"),
        Check("neighbours", "warn", "30 GB of VRAM in use by others\x1b and the driver", "stop them"),
        Check("fp8", "problem", "none"),
    ]
    assert list(lines(checks, 50)) == [
        "ok       device      cuda:0 NVIDIA H100",
        "warn     neighbours  30 GB of VRAM in use by",
        "                     others? and the driver",
        "                     → stop them",
        "problem  fp8         none",
    ]
    assert list(lines([], 80)) == []


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest_loraperf.commands.doctor as d; print({'torch', 'pynvml', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
