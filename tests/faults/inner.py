"""A project whose tests are measured, and a fault that strikes it: real runs of pytest, in processes of their own.

The processes are forked from one that has imported torch, so that each starts at once and can be killed.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from filelock import FileLock

SLOW, BEFORE, FAULTED, AFTER = NAMES = ("slow", "before", "faulted", "after")
JSON = "--loraperf-json=out/out.json"
BASELINE = ("--loraperf-baseline=out/base.json", "--loraperf-update-baseline")
CPU = "--loraperf-device=cpu"
PLUGINS = ("-p", "loraperf", "-p", "xdist")
PRELOADED = (
    "pytest",
    "xdist.plugin",
    "pytest_loraperf.plugin",
    "pytest_loraperf.specs",
    "pytest_loraperf.run.judging",
    "pytest_loraperf.hooks.outcome",
    "pytest_loraperf.run.gathering",
    "pytest_loraperf.baseline.stored",
    "pytest_loraperf.baseline.judge",
    "pytest_loraperf.baseline.measure",
)
OUTPUT = "said.txt"
PASSED, FAILED = ("latency", "PASS"), ("latency", "FAIL")
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"

CONFTEST = r"""
    import errno
    import itertools
    import os
    import re
    import signal
    import sys
    import weakref
    from pathlib import Path
    import pytest
    from pytest_loraperf.fixtures import SESSION
    from pytest_loraperf.gpu import lock

    HERE = Path(__file__).parent
    lock.SHARED = HERE
    WHEN = os.environ.get("FAULT_WHEN")
    HELD = weakref.WeakSet()

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

        def spend(self, seconds):
            self.now += seconds

    CLOCK = Clock()

    class Filled:
        pass

    def run_out(error):
        filled = Filled()
        HELD.add(filled)
        raise error

    def fault():
        FAULT

    def reach(when):
        if when == WHEN:
            fault()

    def written(fsync):
        def synced(file):
            name = os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2]
            for when, temporary in PLACES.items():
                # The journal is struck once it has two tests.
                if re.fullmatch(temporary, name) and (when != "keeping" or next(KEPT) >= 2):
                    reach(when)
            fsync(file)
        return synced

    PLACES = {
        "keeping": r"\.out\.json\.partial\.\d+\.partial",
        "writing results": r"\.out\.json\.\d+\.partial",
        "writing the baseline": r"\.base\.json\.\d+\.partial",
    }
    KEPT = itertools.count()
    os.fsync = written(os.fsync)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(config):
        config.stash[SESSION].clock = CLOCK

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        if call.when == "call" and "faulted" in item.nodeid:
            reach("sending")
        return report

    @pytest.fixture
    def clock():
        return CLOCK
"""
SUITE = """
    import pytest
    from conftest import HELD, reach

    @pytest.fixture
    def prepared(name):
        assert not HELD
        if name == "faulted":
            reach("set-up")
        yield
        if name == "faulted":
            reach("teardown")

    @pytest.mark.latency_budget("3s")
    @pytest.mark.usefixtures("prepared")
    @pytest.mark.parametrize("name", ["slow", "before", "faulted", "after"])
    def test_it(gpu_workload, clock, name):
        calls = []

        def work():
            clock.spend(4.0 if name == "slow" else 2.0)
            calls.append(name)
            if name == "faulted" and len(calls) == 6:
                reach("a round")

        gpu_workload(work, name=name)
"""


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its exit status, negative for a signal, and what it said."""

    status: int
    said: str

    def check_said(self, *lines: str) -> None:
        """Look for these lines in this order, and that nothing of ours broke."""
        pytest.LineMatcher(self.said.splitlines()).fnmatch_lines(list(lines))
        assert "INTERNALERROR" not in self.said
        assert "Traceback (most recent call last)" not in self.said
        # No frame of ours, but where pytest says where an interrupt came.
        shown = [line for line in self.said.splitlines() if not line.endswith(": KeyboardInterrupt")]
        assert not any("pytest_loraperf/" in line for line in shown)


class Project:
    """A folder with a suite of four tests, of which one is struck."""

    def __init__(self, path: Path, fault: str, suite: str = SUITE) -> None:
        self.path = path
        self.results = path / "out" / "out.json"
        self.partial = path / "out" / "out.json.partial"
        self.baseline = path / "out" / "base.json"
        path.mkdir(exist_ok=True)
        (path / "conftest.py").write_text(dedent(CONFTEST).replace("FAULT\n", f"{fault}\n"), encoding="utf-8")
        (path / "test_suite.py").write_text(dedent(suite), encoding="utf-8")
        (path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        self.results.parent.mkdir(exist_ok=True)

    def start(self, *arguments: str, when: str = "", before: str = "") -> ForkServerProcess:
        """Start a run that is struck ``when`` it gets there; ``before`` is a function of this module, called first."""
        process = _forkserver().Process(target=_run, args=(self.path, [*PLUGINS, CPU, *arguments], when, before))
        process.start()
        return process

    def end(self, process: ForkServerProcess) -> Ended:
        """Wait for the end of a run."""
        process.join(120)
        assert process.exitcode is not None
        return Ended(process.exitcode, (self.path / f"{process.pid}.{OUTPUT}").read_text(encoding="utf-8"))

    def run(self, *arguments: str, when: str = "", before: str = "") -> Ended:
        """Run the suite to its end."""
        return self.end(self.start(*arguments, when=when, before=before))

    def check_locks_are_free(self, wait: float = 0.0) -> None:
        """Take each lock, as another process could at once, or within so many seconds."""
        from pytest_loraperf.gpu.lock import DeviceLock

        told: list[str] = []
        noted: list[str] = []
        with (
            DeviceLock("cpu", told.append, noted.append, self.path, wait).held(),
            FileLock(self.baseline.with_name(".base.json.lock"), timeout=wait),
        ):
            assert noted == []


def _forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))  # counts where it comes before the first process
    return context


def _run(folder: Path, arguments: Sequence[str], when: str, before: str) -> None:
    # A shell's background jobs ignore SIGINT, and what they start does, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    file = os.open(f"{os.getpid()}.{OUTPUT}", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "CI", "GITHUB_"))]:
        del os.environ[name]
    # Other plugins are slow to import, and xdist imports them in each worker.
    os.environ |= {"FAULT_WHEN": when, "COLUMNS": "500", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if before:
        globals()[before](folder)
    sys.exit(pytest.main(list(arguments)))


def verdicts(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The code and status of each verdict in a results file, test by test."""
    found: dict[str, list[tuple[str, str]]] = {}
    for each in read(path)["verdicts"]:
        name = each["nodeid"].partition("[")[2].rstrip("]") or each["nodeid"].rpartition("::")[2]
        found.setdefault(name, []).append((each["code"], each["status"]))
    return found


def samples(path: Path) -> dict[str, int]:
    """How many samples of each arm a results file has."""
    return {name: len(taken) for each in read(path)["comparisons"] for name, taken in each["samples_s"].items()}


def read(path: Path) -> Mapping[str, Any]:
    """What a results file holds; it is one that the product reads."""
    from pytest_loraperf.report.results import read_results

    read_results(path)
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def accepted(path: Path) -> list[str]:
    """The names of the records of a baseline."""
    return sorted(each["subject"]["name"] for each in json.loads(path.read_text())["records"].values() if each)


# What is called in the run's own process, before it starts or as the fault. A mount is the process's own, and is
# gone with it.
NEW_NAMESPACE, NEW_USER = 0x20000, 0x10000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18


def fill(folder: Path) -> None:
    """Put the results on a disk that has room for those of one test."""
    _own_mounts()
    _mount("none", folder / "out", "tmpfs", 0, "size=4k")


def make_read_only(folder: Path) -> None:
    """Let nobody write the folder of the results, root neither."""
    if os.geteuid() != 0:
        (folder / "out").chmod(0o555)
        return
    _own_mounts()
    _mount(folder / "out", folder / "out", "none", BIND)
    _mount("none", folder / "out", "none", BIND | REMOUNT | READ_ONLY)


def need_mounts(*, of_root_alone: bool = False) -> None:
    """Skip a test where a process may have no mounts of its own; a user can make a folder read-only without."""
    if of_root_alone and os.geteuid() != 0:
        return
    process = _forkserver().Process(target=_own_mounts)
    process.start()
    process.join()
    if process.exitcode != 0:
        pytest.skip("this process may mount nothing, and root writes everywhere else")


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACE if os.geteuid() == 0 else NEW_NAMESPACE | NEW_USER):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", "none", RECURSIVE | PRIVATE)


def _mount(source: Path | str, target: Path | str, kind: str, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(str(source).encode(), str(target).encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {target}")
