"""The machine around the GPU: its memory and CPUs, and what a container may use of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_LIMIT = 2**60
"""Bytes; what cgroup v1 writes where there is no limit is above."""


@dataclass(frozen=True)
class Host:
    """The machine around the GPU, None where it does not tell.

    ``memory`` are bytes available, ``memory_limit`` and ``cpu_quota`` (CPUs) what the container may use, ``cpus``
    all CPUs, ``usable`` those that this process may run on, ``load`` the mean of the last minute.
    """

    memory: int | None = None
    memory_limit: int | None = None
    cpu_quota: float | None = None
    cpus: int = 1
    usable: int = 1
    load: float = 0.0
    governor: str | None = None


def probe_host(root: Path = Path("/")) -> Host:
    """Read what Linux says of memory, CPUs and the container's limits, below ``root``."""
    return Host(
        memory=_available(root),
        memory_limit=min(_memory_limits(root), default=None),
        cpu_quota=min(_cpu_quotas(root), default=None),
        cpus=os.cpu_count() or 1,
        usable=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
    )


def spare_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take: of the host's, and below the container's limits.

    A container that takes more than its limit is killed. 0 where the host does not tell.
    """
    available = _available(root)
    return 0 if available is None else max(0, min([available, *_below_limits(root)]))


def cpu_name(root: Path = Path("/")) -> str:
    """Return what the machine calls its processor, or "CPU" where it does not tell."""
    lines = _text(root / "proc/cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next((name for name in names if name), "CPU")


def _available(root: Path) -> int | None:
    found = [line.split()[1] for line in _text(root / "proc/meminfo").splitlines() if line.startswith("MemAvail")]
    return int(found[0]) * 1024 if found else None


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(group / name)
            if limit is not None:
                yield limit


def _below_limits(root: Path) -> Iterator[int]:
    """Bytes that each limit leaves; the cache of files not in use gives way, as in Kubernetes' working set."""
    for group in _groups(root, "memory"):
        pairs = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for limit, used in ((_number(group / limit), _number(group / used)) for limit, used in pairs):
            if limit is not None and used is not None:
                yield limit - used + _cached(group)


def _cached(group: Path) -> int:
    """Bytes of files not in use, those of the groups below included: ``total_`` in version 1."""
    stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
    return int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)


def _number(path: Path) -> int | None:
    """Bytes, None where there is no limit."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() and int(text) < NO_LIMIT else None


def _cpu_quotas(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        v1 = f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        for text in (_text(group / "cpu.max"), v1):
            match text.split():
                case [quota, period] if quota.isdecimal() and period.isdecimal():
                    yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups of version 2 and 1, each with those above it.

    In a container the path in ``/proc/self/cgroup`` may be the host's; then the topmost folder is the container's.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = base / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(base))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
