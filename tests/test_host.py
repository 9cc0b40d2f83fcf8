from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_loraperf.host import probe_host, spare_memory

GB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "memory_limit", "cpu_quota"),
    [
        ({}, None, None),
        (  # version 2, inside a container
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": str(8 * GB),
                "sys/fs/cgroup/cpu.max": "250000 100000",
            },
            8 * GB,
            2.5,
        ),
        (  # version 2, a service: the folder above holds the lower limit
            {
                "proc/self/cgroup": "0::/user.slice/shell",
                "sys/fs/cgroup/user.slice/memory.max": str(4 * GB),
                "sys/fs/cgroup/user.slice/cpu.max": "max 100000",
                "sys/fs/cgroup/user.slice/shell/memory.max": str(6 * GB),
                "sys/fs/cgroup/user.slice/shell/cpu.max": "50000 100000",
            },
            4 * GB,
            0.5,
        ),
        (  # version 2 without limits
            {
                "proc/self/cgroup": "0::/a",
                "sys/fs/cgroup/a/memory.max": "max",
                "sys/fs/cgroup/a/cpu.max": "max 100000",
            },
            None,
            None,
        ),
        (  # version 1, where the path is the host's and the container sees its own folder as the topmost
            {
                "proc/self/cgroup": "4:memory:/docker/1\n2:cpu,cpuacct:/docker/1",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * GB),
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8 * GB,
            1.5,
        ),
        (  # version 1 without limits
            {
                "proc/self/cgroup": "4:memory:/\n2:cpu:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
            None,
        ),
    ],
)
def test_limits_of_control_groups(
    tmp_path: Path, files: dict[str, str], memory_limit: int | None, cpu_quota: float | None
) -> None:
    host = probe_host(write(tmp_path, files))
    assert (host.memory_limit, host.cpu_quota) == (memory_limit, cpu_quota)


def test_what_linux_says(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:       9 kB\nMemAvailable:    2048 kB",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        },
    )
    host = probe_host(root)
    assert (host.memory, host.governor) == (2048 * 1024, "schedutil")
    assert (probe_host(tmp_path / "none").memory, probe_host(tmp_path / "none").governor) == (None, None)


MEMINFO = {"proc/meminfo": f"MemAvailable:  {10 * 2**20} kB"}


@pytest.mark.parametrize(
    ("files", "spare"),
    [
        ({}, 0),
        (MEMINFO, 10 * GB),
        (  # version 2: a limit that is near, with files in the cache that give way
            MEMINFO
            | {
                "proc/self/cgroup": "0::/a",
                "sys/fs/cgroup/a/memory.max": str(8 * GB),
                "sys/fs/cgroup/a/memory.current": str(7 * GB),
                "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {2 * GB}\nactive_file 7",
            },
            3 * GB,
        ),
        (  # version 2: the group above is fuller
            MEMINFO
            | {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/memory.max": str(8 * GB),
                "sys/fs/cgroup/a/memory.current": str(9 * GB),
                "sys/fs/cgroup/a/b/memory.max": str(8 * GB),
                "sys/fs/cgroup/a/b/memory.current": str(GB),
            },
            0,
        ),
        (  # version 1
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * GB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(6 * GB),
                "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}",
            },
            3 * GB,
        ),
        (  # version 1 without a limit
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(6 * GB),
            },
            10 * GB,
        ),
    ],
)
def test_what_can_still_be_taken(tmp_path: Path, files: dict[str, str], spare: int) -> None:
    assert spare_memory(write(tmp_path, files)) == spare


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, pytest_loraperf.host; print({'torch', 'pynvml', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
