"""The lock on a device: one process at a time, free again when its holder dies."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.lock import DeviceLock

HOLDER = """
import sys, time
from pathlib import Path
from pytest_loraperf.gpu.lock import DeviceLock
with DeviceLock("GPU-1", print, print, Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


class Said(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def lock(folder: Path, told: Said, wait: float = 0.2, device: str = "GPU-1") -> DeviceLock:
    return DeviceLock(device, told, told, folder, wait)


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_waits_and_says_so(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told = Said()
    message = (
        rf"^other processes have been measuring on GPU-1 for 0 s \(they hold {tmp_path}/pytest-loraperf-GPU-1.lock\); "
        "look whether one is stuck, and run this again$"
    )
    with pytest.raises(LoraperfError, match=message), lock(tmp_path, told).held():
        pytest.fail("it was not alone")
    assert told == ["waiting for another process that measures on GPU-1"]
    holder.kill()
    holder.communicate()


def test_a_holder_that_is_killed_leaves_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    told = Said()
    with lock(tmp_path, told, wait=30.0).held():
        assert told == []


def test_other_devices_do_not_wait(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told = Said()
    with lock(tmp_path, told, device="GPU-2").held():
        assert told == []
    holder.kill()
    holder.communicate()


def test_it_is_held_again_within_and_let_go_at_an_error(tmp_path: Path) -> None:
    told = Said()
    mine = lock(tmp_path, told)
    with pytest.raises(ZeroDivisionError), mine.held(), mine.held():
        1 / 0  # noqa: B018 - it is the error that counts
    start = time.monotonic()
    with lock(tmp_path, told).held():
        assert time.monotonic() - start < 0.2
    assert told == []


def test_a_name_is_no_path(tmp_path: Path) -> None:
    assert lock(tmp_path, Said(), device="../a b/c").path == tmp_path / "pytest-loraperf-..-a-b-c.lock"


def test_where_there_can_be_no_lock_it_is_said(tmp_path: Path) -> None:
    told = Said()
    (tmp_path / "file").write_text("")
    with lock(tmp_path / "file", told).held():
        pass
    (said,) = told
    assert "cannot be locked (" in said
    assert said.endswith(
        "another process may measure on GPU-1 at the same time; remove the file, or let all users write it"
    )


def test_a_process_that_the_work_forked_keeps_no_lock(tmp_path: Path) -> None:
    told, mine = Said(), lock(tmp_path, Said())
    with mine.held():
        assert mine._file is not None
        inherited = os.dup(mine._file)  # a fork has the same open file
    with lock(tmp_path, told).held():
        assert told == []
    os.close(inherited)


def test_who_waits_comes_before_who_comes_again(tmp_path: Path) -> None:
    greedy, told, stop = lock(tmp_path, Said(), wait=60.0), Said(), threading.Event()
    turns = itertools.count()

    def measure_test_after_test() -> None:
        while not stop.is_set():
            with greedy.held():
                next(turns)
                time.sleep(0.01)

    thread = threading.Thread(target=measure_test_after_test)
    thread.start()
    try:
        while next(turns) < 2:
            time.sleep(0.001)
        with lock(tmp_path, told, wait=5.0).held():
            pass  # where the lock is polled for alone, it is free for microseconds between two tests, and never found
    finally:
        stop.set()
        thread.join()
    assert set(told) <= {"waiting for another process that measures on GPU-1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_two_users_keep_each_other_out(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in (tmp_path, *tmp_path.parents[:-1]):
        parent.chmod(parent.stat().st_mode | 0o111)
    path = lock(folder, Said()).path
    path.write_text("")
    os.chown(path, 12345, 12345)
    path.chmod(0o666)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told = Said()
    with pytest.raises(LoraperfError, match="other processes have been measuring"), lock(folder, told).held():
        pytest.fail("it was not alone")
    holder.kill()
    holder.communicate()
    assert told == ["waiting for another process that measures on GPU-1"]
