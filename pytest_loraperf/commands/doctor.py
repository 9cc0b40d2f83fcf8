"""``loraperf doctor``: what this machine can do, what would spoil a measurement, and what to do about each.

``probe`` asks the machine, ``diagnose`` judges what it answered, ``lines`` shows that.
"""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from pytest_loraperf.errors import DeviceError, LoraperfError, said
from pytest_loraperf.host import Host, probe_host
from pytest_loraperf.limits import Rates, rates_shown
from pytest_loraperf.measure.validity import (
    AGAINST_THROTTLING,
    COOL,
    HEAT_MARGIN,
    NEIGHBOUR_TOLERANCE,
    SHOW_NVML,
    STOP_NEIGHBOURS,
    TELLS_LESS,
    unexplained_bytes,
)
from pytest_loraperf.registry import BACKENDS, DEFAULT, Entry, others
from pytest_loraperf.report.table import MIN_WIDTH, one_line
from pytest_loraperf.session import FULL_MODEL_NEEDS
from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pytest_loraperf.gpu.device import Device
    from pytest_loraperf.gpu.nvml import Reading

LIBRARIES = ("diffsynth", "diffusers", "peft", "transformers", "accelerate")
PACKAGES = ("torch", *LIBRARIES, "torchao", "pytest", "pytest-loraperf")
FULL_MODEL_WEIGHTS = 20 * 2**30
BUSY = 10
"""Percent of the time; a GPU that nobody uses is below."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; a ``problem`` keeps measuring from working, a ``warn`` may spoil it."""

    topic: str
    status: Literal["ok", "warn", "problem"]
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Gpu:
    """What NVML says of the GPU, None where it does not: bytes, percent of the time, MHz and °C."""

    reading: Reading | None = None
    unexplained: int | None = None
    utilization: int | None = None
    max_sm_clock: int | None = None
    slowdown_c: int | None = None
    persistence: bool | None = None


@dataclass(frozen=True)
class Probe:
    """All that was asked; ``device`` is a text where it cannot be used, ``no_torchao`` says why not, if not.

    ``rates`` are what the device does in a second, None where nobody asked, a text where that failed.
    ``backends`` are those that other packages bring: a version, or the error that says why one cannot be used.
    """

    device: Device | str
    driver: str | None
    versions: Mapping[str, str | None]
    no_torchao: str | None
    gpu: Gpu
    host: Host
    rates: Rates | str | None = None
    backends: Mapping[str, str | LoraperfError] = field(default_factory=dict)


def examine(device: str = "auto", *, rates: bool = False) -> list[Check]:
    """Look at this machine, and at the device as ``--loraperf-device`` names it; ``rates`` measures it."""
    return diagnose(probe(device, rates=rates))


def lines(checks: Iterable[Check], width: int) -> Iterator[str]:
    """Yield the checks, aligned and wrapped, what to do below what was found."""
    checks = list(checks)
    topics = max((len(check.topic) for check in checks), default=0)
    for check in checks:
        head = f"{check.status:<7}  {check.topic:<{topics}}  "
        for mark, text in ((head, check.found), (f"{'':{len(head)}}→ ", check.advice)):
            indent = " " * len(mark)
            yield from textwrap.wrap(
                one_line(text), max(width, MIN_WIDTH), initial_indent=mark, subsequent_indent=indent
            )


def probe(wanted: str, *, rates: bool = False) -> Probe:
    """Ask the machine; nothing is changed on it."""
    versions = {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    try:
        from pytest_loraperf.gpu import nvml  # noqa: PLC0415 - pynvml
        from pytest_loraperf.gpu.device import resolve_device  # noqa: PLC0415 - torch
    except (ImportError, OSError) as error:  # an installation whose libraries do not load
        why = f"torch cannot be imported: {error}; install it again"
        return Probe(why, None, versions, None, Gpu(), probe_host())
    try:
        device: Device | str = resolve_device(wanted)
    except DeviceError as error:
        device = str(error)
    gpu = Gpu() if isinstance(device, str) or not device.is_cuda else _probe_gpu(device)
    measured = _probe_rates(device) if rates and not isinstance(device, str) else None
    theirs = {} if isinstance(device, str) else _load_others(device)
    no_torchao = _why_no_torchao(versions)
    return Probe(device, nvml.driver_version(), versions, no_torchao, gpu, probe_host(), measured, theirs)


def diagnose(found: Probe) -> list[Check]:
    """Judge what was found; pure."""
    checks = [
        *_device(found.device),
        *_driver(found),
        *_versions(found),
        *_backends(found.versions),
        *_others(found),
    ]
    if not isinstance(found.device, str) and found.device.is_cuda:
        checks.append(_fp8(found.device))
        if found.driver:
            checks += [*_neighbours(found.gpu), *_clocks(found.gpu)]
    return [*checks, *_rates(found.rates), *_memory(found.host), *_limits(found.host), *_cpu(found.host)]


def _device(device: Device | str) -> Iterator[Check]:
    if isinstance(device, str):
        head, _, advice = device.rpartition("; ")
        yield Check("device", "problem", head or device, advice if head else "")
    elif not device.is_cuda:
        yield Check(
            "device",
            "warn",
            "CPU: without CUDA the tiny model stands in, and sizes are counted tensor bytes",
            "for figures that count, measure on a machine with an NVIDIA GPU",
        )
    else:
        yield Check("device", "ok", f"{device.torch_name} {_card(device)}")
        if device.total < FULL_MODEL_NEEDS:
            yield Check(
                "device",
                "warn",
                f"the full synthetic model needs {format_size(FULL_MODEL_NEEDS)}: the tiny one stands in",
                "name a model that fits with --loraperf-model, or measure on a larger card",
            )


def _card(device: Device) -> str:
    capability = ".".join(map(str, device.capability or ()))
    return f"{device.name}, {format_size(device.total)} of VRAM, compute capability {capability}"


def _driver(found: Probe) -> Iterator[Check]:
    if found.driver:
        yield Check("driver", "ok", found.driver)
    elif not isinstance(found.device, str) and found.device.is_cuda:
        yield Check(
            "driver",
            "warn",
            "NVML is not available: throttling, clocks, heat and neighbours are not watched",
            SHOW_NVML,
        )


def _versions(found: Probe) -> Iterator[Check]:
    have = found.versions
    yield Check("versions", "ok", ", ".join(f"{name} {version}" for name, version in have.items() if version))
    if not have["torchao"]:
        yield Check(
            "versions",
            "warn",
            "torchao is not installed: quantizing is fp8_storage, which saves VRAM and no time",
            "pip install 'pytest-loraperf[torchao]'",
        )
    elif found.no_torchao:
        reason, _, advice = found.no_torchao.rpartition("; ")
        yield Check("versions", "warn", reason, advice)


def _backends(have: Mapping[str, str | None]) -> Iterator[Check]:
    """Say of each backend what it offers, or what it lacks; that is no fault while the default is there."""
    lacks = {name: _lacks(entry, have) for name, entry in BACKENDS.items()}
    for name, entry in BACKENDS.items():
        lacking = lacks[name]
        if lacking is None:
            offers = (
                f"builds {', '.join(entry.pipelines)}",
                f"quantizes by {', '.join(entry.schemes)}",
                f"offloads by {', '.join(entry.offloads)}",
            )
            yield Check("backends", "ok", f"{name} ({entry.package} {have[entry.package]}): {'; '.join(offers)}")
        elif name != DEFAULT:
            yield Check("backends", "ok", f"{name} is not there: {lacking}", _install(name, have))
    usable = [name for name, lacking in lacks.items() if lacking is None]
    if not usable:
        yield Check("backends", "problem", f"{lacks[DEFAULT]}: no strategy can be built", _install(DEFAULT, have))
    elif DEFAULT not in usable:
        instead = f"use --loraperf-backend={usable[0]}, or {_install(DEFAULT, have)}"
        yield Check("backends", "warn", f"{lacks[DEFAULT]}: the default backend {DEFAULT} cannot be used", instead)


def _others(found: Probe) -> Iterator[Check]:
    for name, version in found.backends.items():
        if isinstance(version, LoraperfError):
            yield Check("backends", "warn", str(version), "mend or upgrade the package that brings it")
        else:
            yield Check("backends", "ok", f"{name} {version}: brought by another package")


def _lacks(entry: Entry, have: Mapping[str, str | None]) -> str | None:
    """Return what a backend lacks of its packages, None if nothing."""
    missing = [package for package in (entry.package, *entry.needs) if not have[package]]
    if missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    found = have[entry.package] or ""
    if entry.major is not None and found.partition(".")[0] != str(entry.major):
        return f"{entry.package} {found} is installed, and it is for {entry.major}.x"
    return None


def _install(name: str, have: Mapping[str, str | None]) -> str:
    """Return how to get a backend's packages: DiffSynth 1.1 and 2.x exclude one another."""
    entry = BACKENDS[name]
    apart = "in an environment of its own, " if entry.major is not None and have[entry.package] else ""
    return f"{apart}pip install 'pytest-loraperf[{entry.extra}]'"


def _fp8(device: Device) -> Check:
    if device.has_fp8_matmul:
        return Check("fp8", "ok", "fp8 matrix products run on this GPU")
    return Check(
        "fp8",
        "warn",
        "no fp8 matrix products (compute capability 8.9 and later have them): quantizing is fp8_storage",
        "expect quantizing to save VRAM and no time here",
    )


def _neighbours(gpu: Gpu) -> Iterator[Check]:
    if gpu.unexplained is not None:
        used = f"{format_size(gpu.unexplained)} of VRAM in use by others and the driver"
        crowded = gpu.unexplained > NEIGHBOUR_TOLERANCE
        yield Check("neighbours", "warn" if crowded else "ok", used, STOP_NEIGHBOURS if crowded else "")
    if gpu.utilization is not None and gpu.utilization > BUSY:
        busy = f"kernels of others ran in {gpu.utilization} % of the last moment"
        yield Check("neighbours", "warn", busy, STOP_NEIGHBOURS)


def _clocks(gpu: Gpu) -> Iterator[Check]:
    reading = gpu.reading
    if reading is None:
        nothing = "the driver tells nothing of this GPU's clocks, heat and neighbours"
        yield Check("clocks", "warn", nothing, TELLS_LESS)
        return
    known = {
        "SM clock {} MHz": reading.sm_clock_mhz,
        "at most {} MHz": gpu.max_sm_clock,
        "{} °C": reading.temperature_c,
    }
    state = ", ".join(text.format(value) for text, value in known.items() if value is not None)
    yield Check("clocks", "ok", state or "not told by the driver")
    for reason in sorted(reading.throttle or ()):
        yield Check("clocks", "warn", f"the GPU is slowed down: {reason}", AGAINST_THROTTLING[reason])
    hot, limit = reading.temperature_c, gpu.slowdown_c
    if hot is not None and limit is not None and hot >= limit - HEAT_MARGIN:
        yield Check("clocks", "warn", f"{hot} °C, and the GPU slows itself down at {limit} °C", COOL)
    if gpu.persistence is False:
        yield Check(
            "clocks",
            "warn",
            "persistence mode is off: the driver unloads between runs and forgets clocks that were locked",
            "nvidia-smi -pm 1, as root",
        )


def _rates(rates: Rates | str | None) -> Iterator[Check]:
    if isinstance(rates, Rates):
        yield Check("rates", "ok", ", ".join(rates_shown(rates)))
    elif rates is not None:
        yield Check(
            "rates", "warn", f"cannot be measured: {rates}", "see what else uses the device, and ask again"
        )


def _memory(host: Host) -> Iterator[Check]:
    known = [size for size in (host.memory, host.memory_limit) if size is not None]
    if not known:
        return
    available, need = min(known), 2 * FULL_MODEL_WEIGHTS
    text = f"{format_size(available)} available for pinning"
    if available >= need:
        yield Check("memory", "ok", text)
    else:
        yield Check(
            "memory",
            "warn",
            f"{text}; offloading a full model may take {format_size(need)}: its weights, and again pinned",
            "free host memory or raise the container's limit before measuring low_vram at full size",
        )


def _limits(host: Host) -> Iterator[Check]:
    memory = "unlimited" if host.memory_limit is None else format_size(host.memory_limit)
    quota = "unlimited" if host.cpu_quota is None else f"{host.cpu_quota:.3g} CPUs"
    cpus = f"{host.usable} of {host.cpus} CPUs usable"
    yield Check("limits", "ok", f"memory {memory}, CPU time {quota}, {cpus}")
    if host.cpu_quota is not None and host.cpu_quota < host.usable:
        yield Check(
            "limits",
            "warn",
            f"the quota of {host.cpu_quota:.3g} CPUs is below the {host.usable} that threads are started for: "
            "they are halted in turns",
            f"set OMP_NUM_THREADS={max(1, int(host.cpu_quota))}, or raise the container's CPU quota",
        )


def _cpu(host: Host) -> Iterator[Check]:
    if host.load > host.cpus:
        yield Check(
            "cpu",
            "warn",
            f"load average {host.load:.1f} on {host.cpus} CPUs: launching kernels has to wait its turn",
            "stop what else runs on this machine (on its host too, where this is a container)",
        )
    if host.governor not in (None, "performance"):
        yield Check(
            "cpu",
            "warn",
            f"the CPU frequency governor is {host.governor}: launch times vary with the CPU's clock",
            "cpupower frequency-set -g performance, as root",
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _why_no_torchao(versions: Mapping[str, str | None]) -> str | None:
    if not versions["torchao"]:
        return None  # it is said that it is missing
    from pytest_loraperf.backends.quantization import why_no_torchao  # noqa: PLC0415 - torch

    return why_no_torchao()


def _load_others(device: Device) -> dict[str, str | LoraperfError]:
    from pytest_loraperf.backends import load_other  # noqa: PLC0415 - torch

    found: dict[str, str | LoraperfError] = {}
    for name in sorted(others()):
        try:
            found[name] = load_other(device, name).version
        except LoraperfError as error:
            found[name] = error
    return found


def _probe_rates(device: Device) -> Rates | str:
    from pytest_loraperf.gpu.lock import DeviceLock  # noqa: PLC0415 - only where rates are asked for
    from pytest_loraperf.measure.rates import measure_rates  # noqa: PLC0415 - torch
    from pytest_loraperf.measure.timing import Stopwatch  # noqa: PLC0415 - the same

    watch = Stopwatch(synchronize=device.synchronize, gpu_mark=device.gpu_mark)
    dtypes = ["bfloat16", *(["float8_e4m3fn"] if device.has_fp8_matmul else [])]
    try:
        with DeviceLock(device.uuid or device.torch_name, print, print).held():
            return measure_rates(device, watch, dtypes)
    except (LoraperfError, RuntimeError) as error:  # memory that others hold, a device that was lost
        return said(error)


def _probe_gpu(device: Device) -> Gpu:
    import torch  # noqa: PLC0415 - heavy

    from pytest_loraperf.gpu import nvml  # noqa: PLC0415 - pynvml

    uuid = device.uuid or ""
    reading, held = nvml.read(uuid), nvml.process_bytes(uuid)
    used = reading.used_bytes if reading else None
    reserved = torch.cuda.memory_reserved(device.index)
    return Gpu(
        reading=reading,
        unexplained=None if used is None else unexplained_bytes(used, held, reserved),
        utilization=nvml.utilization(uuid),
        max_sm_clock=nvml.max_sm_clock(uuid),
        slowdown_c=nvml.slowdown_temperature(uuid),
        persistence=nvml.persistence_mode(uuid),
    )
