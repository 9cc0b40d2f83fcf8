"""Admission to a GPU: tests run together where their needs fit, in the order of asking, and the dead hold nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.admission import Admission, Entry, admits

GB = 2**30
TOTAL = 80 * GB


def running(need: float, ticket: int = 1) -> Entry:
    return Entry(ticket, int(need * GB), running=True)


def waiting(need: float, ticket: int) -> Entry:
    return Entry(ticket, int(need * GB))


class TestWhoIsAdmitted:
    @pytest.mark.parametrize(
        ("others", "mine", "admitted"),
        [
            ([], waiting(14, 5), True),
            ([], waiting(800, 5), True),  # alone, whatever it needs
            ([running(66)], waiting(14, 5), True),
            ([running(67)], waiting(14, 5), False),
            ([running(40), running(30, 2)], waiting(14, 5), False),
            ([running(40), running(26, 2)], waiting(14, 5), True),
            ([waiting(80, 4)], waiting(1, 5), False),  # first come, first served
            ([running(10), waiting(80, 4)], waiting(1, 5), False),  # none overtakes, or the large one would starve
            ([running(10), waiting(80, 6)], waiting(1, 5), True),
        ],
    )
    def test_it_is(self, others: list[Entry], mine: Entry, admitted: bool) -> None:
        assert admits(mine, others, TOTAL) is admitted

    @given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.randoms(use_true_random=False))
    def test_all_get_their_turn_in_order_and_fit(self, needs: list[int], random: object) -> None:
        queue = [waiting(need, ticket) for ticket, need in enumerate(needs)]
        on: list[Entry] = []
        served: list[int] = []
        while queue or on:
            for entry in list(queue):
                others = [*on, *(each for each in queue if each is not entry)]
                if admits(entry, others, TOTAL):
                    queue.remove(entry)
                    on.append(Entry(entry.ticket, entry.need, running=True))
                    served.append(entry.ticket)
            assert on, "nobody runs and all wait"
            assert len(on) == 1 or sum(entry.need for entry in on) <= TOTAL
            on.remove(random.choice(on))  # type: ignore[attr-defined]  # a random.Random of hypothesis
        assert served == list(range(len(needs)))


class Said(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


class Time:
    """A clock that sleeping moves on; ``then`` is called the first time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then()
        self.then = lambda: None


def queue(folder: Path, said: Said | None = None, clock: Time | None = None, wait: float = 5.0) -> Admission:
    clock = clock or Time()
    told = Said() if said is None else said
    return Admission("GPU-1", TOTAL, told, told, folder, wait, clock, clock.sleep)


class TestTheQueue:
    def test_what_fits_starts_at_once(self, tmp_path: Path) -> None:
        one, other = queue(tmp_path), queue(tmp_path)
        assert one.enter(40 * GB) == 0.0
        assert other.enter(40 * GB) == 0.0

    def test_what_does_not_fit_waits_until_another_leaves(self, tmp_path: Path) -> None:
        said, clock = Said(), Time()
        one, other = queue(tmp_path), queue(tmp_path, said, clock)
        one.enter(60 * GB)
        clock.then = one.leave
        assert other.enter(30 * GB) == pytest.approx(0.1)
        assert said == ["waiting for 30 GB of room on GPU-1"]
        assert [path.suffix for path in sorted(other.folder.iterdir())] == [".entry", ""]

    def test_it_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        one, other, third = queue(tmp_path), queue(tmp_path), queue(tmp_path)
        one.enter(60 * GB)
        message = (
            rf"^a test that needs 30 GB has found no room on GPU-1 for 5 s beside those of other processes "
            rf"\(in {tmp_path}/pytest-loraperf-GPU-1.room\); look whether one is stuck, and run this again$"
        )
        with pytest.raises(LoraperfError, match=message):
            other.enter(30 * GB)
        assert third.enter(20 * GB) == 0.0  # it no longer waits, so none waits for it

    def test_what_is_kept_counts_until_it_is_given_back(self, tmp_path: Path) -> None:
        clock = Time()
        one, other = queue(tmp_path), queue(tmp_path, clock=clock)
        one.enter(40 * GB)
        given: list[str] = []
        assert other.enter(10 * GB, kept=30 * GB, give_back=lambda: given.append("at the first")) == 0.0
        assert given == []
        clock.then = one.leave
        other.enter(10 * GB, kept=40 * GB, give_back=lambda: given.append("now"))
        assert given == ["now"]

    def test_what_is_given_back_lets_a_test_in_at_once(self, tmp_path: Path) -> None:
        one, other = queue(tmp_path), queue(tmp_path)
        one.enter(40 * GB)
        assert other.enter(10 * GB, kept=60 * GB) == 0.0

    def test_while_giving_back_the_place_is_kept_and_the_memory_counts(self, tmp_path: Path) -> None:
        one, other, third = queue(tmp_path), queue(tmp_path), queue(tmp_path, wait=0.0)
        one.enter(30 * GB)
        other.enter(45 * GB)

        def give_back() -> None:
            with pytest.raises(LoraperfError, match="has found no room"):
                third.enter(10 * GB)

        clock_of_one = Time()
        clock_of_one.then = other.leave
        one._clock, one._sleep = clock_of_one, clock_of_one.sleep
        one.enter(40 * GB, give_back=give_back)

    def test_an_error_while_giving_back_leaves_no_entry(self, tmp_path: Path) -> None:
        one, other = queue(tmp_path), queue(tmp_path)
        one.enter(40 * GB)
        other.enter(40 * GB)
        with pytest.raises(ZeroDivisionError):
            other.enter(70 * GB, give_back=lambda: 1 // 0)  # type: ignore[arg-type]  # it raises
        other.leave()
        one.leave()
        assert [path.name for path in one.folder.iterdir()] == ["lock"]

    def test_another_gpu_has_a_queue_of_its_own(self, tmp_path: Path) -> None:
        queue(tmp_path).enter(80 * GB)
        said = Said()
        other = Admission("GPU-2", TOTAL, said, said, tmp_path)
        assert other.enter(80 * GB) == 0.0

    def test_a_live_entry_that_cannot_be_read_has_it_all(self, tmp_path: Path) -> None:
        one, other = queue(tmp_path), queue(tmp_path, wait=0.0)
        one.enter(1 * GB)
        (entry,) = one.folder.glob("*.entry")
        entry.write_text("what is this")
        with pytest.raises(LoraperfError, match="has found no room"):
            other.enter(1 * GB)

    def test_where_there_can_be_no_queue_it_is_said(self, tmp_path: Path) -> None:
        said = Said()
        (tmp_path / "file").write_text("")
        assert queue(tmp_path / "file", said).enter(80 * GB) == 0.0
        (line,) = said
        assert line.startswith(f"warning: {tmp_path}/file/pytest-loraperf-GPU-1.room cannot be used (")
        assert line.endswith(
            "): the tests of several workers may not fit on GPU-1 together; remove it, or let all users write it"
        )


HOLDER = """
import os, sys, time
from collections.abc import Callable
from pathlib import Path
from pytest_loraperf.gpu.admission import Admission
queue = Admission("GPU-1", 80 * 2**30, print, print, Path(sys.argv[1]))
queue.enter(60 * 2**30)
print("in", flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    clock = Time()
    mine = queue(tmp_path, clock=clock)

    def kill() -> None:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()

    clock.then = kill
    assert mine.enter(60 * GB) == pytest.approx(0.1)
    assert len(list(mine.folder.glob("*.entry"))) == 1  # the dead one's is removed


FORKER = """
import os, sys, time
from collections.abc import Callable
from pathlib import Path
from pytest_loraperf.gpu.admission import Admission
queue = Admission("GPU-1", 80 * 2**30, print, print, Path(sys.argv[1]))
queue.enter(80 * 2**30)
if os.fork() == 0:
    time.sleep(600)
queue.leave()
print("out", flush=True)
time.sleep(600)
"""


def test_what_a_test_forked_holds_nothing(tmp_path: Path) -> None:
    forker = subprocess.Popen(
        [sys.executable, "-c", FORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert forker.stdout is not None
    assert forker.stdout.readline() == "out\n"
    assert queue(tmp_path, wait=0.0).enter(80 * GB) == 0.0
    os.killpg(forker.pid, signal.SIGKILL)
    forker.communicate()


RACER = """
import sys, time
from collections.abc import Callable
from pathlib import Path
from pytest_loraperf.gpu.admission import Admission
from pytest_loraperf.gpu.lock import DeviceLock
folder, need = Path(sys.argv[1]), int(sys.argv[2])
queue = Admission("GPU-1", 80, print, print, folder, wait=60.0)
lock = DeviceLock("GPU-1", print, print, folder, wait=60.0)
for _ in range(5):
    queue.enter(need)
    start = time.monotonic()
    with lock.held():
        time.sleep(0.01)
    with open(folder / "spans", "a") as file:
        file.write(f"{start} {time.monotonic()} {need}\\n")
queue.leave()
"""


def test_processes_that_also_measure_never_block_each_other_nor_run_over(tmp_path: Path) -> None:
    needs = (80, 50, 30, 20)
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(need)]) for need in needs]
    assert [racer.wait(timeout=120) for racer in racers] == [0] * len(needs)
    spans = [line.split() for line in (tmp_path / "spans").read_text().splitlines()]
    assert len(spans) == 5 * len(needs)
    taken = [(float(start), float(end), int(need)) for start, end, need in spans]
    for moment, _, _ in taken:
        assert sum(need for start, end, need in taken if start <= moment < end) <= 80
