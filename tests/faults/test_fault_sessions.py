"""Two sessions of one host: they share a baseline and a device, and one of them may be killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from inner import BASELINE, FAULTED, JSON, KILLED, PASSED, Project, accepted, verdicts

HELD = "Path(f'{os.getpid()}.there').touch(); import time; time.sleep(0.5)"
STUCK = "Path(f'{os.getpid()}.there').touch(); import time; time.sleep(600)"


def wait_until_it_is_struck(project: Project, process: int | None) -> None:
    there = project.path / f"{process}.there"
    deadline = time.monotonic() + 60
    while not there.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there.exists()


@pytest.mark.fault(
    "two sessions update one baseline", "writing the baseline", "the second waits; records of both are there"
)
def test_two_sessions_that_update_one_baseline(tmp_path: Path) -> None:
    project = Project(tmp_path, HELD)
    first = project.start(*BASELINE, "-k", "before", when="writing the baseline")
    wait_until_it_is_struck(project, first.pid)
    second = project.run("--loraperf-json=out/second.json", *BASELINE, "-k", FAULTED)
    assert (project.end(first).status, second.status) == (0, 0)
    second.check_said("baseline *base.json: accepted faulted; commit it")
    assert accepted(project.baseline) == ["before", FAULTED]
    project.check_locks_are_free()


@pytest.mark.fault(
    "two sessions update one baseline",
    "the first is killed while it writes",
    "its lock is free at once; the second writes its records",
)
def test_the_first_of_two_sessions_is_killed_while_it_writes(tmp_path: Path) -> None:
    project = Project(tmp_path, STUCK)
    first = project.start(*BASELINE, "-k", "before", when="writing the baseline")
    wait_until_it_is_struck(project, first.pid)
    second = project.start(JSON, *BASELINE, "-k", FAULTED)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    ended = project.end(second)
    assert ended.status == 0
    ended.check_said("baseline *base.json: accepted faulted; commit it")
    assert verdicts(project.results) == {FAULTED: [PASSED]}
    assert accepted(project.baseline) == [FAULTED]
    assert project.end(first).status == -signal.SIGKILL
    project.check_locks_are_free()


@pytest.mark.fault(
    "two sessions measure on one device",
    "the first is killed in a round",
    "the device is free at once; the second measures",
)
def test_the_first_of_two_sessions_is_killed_while_it_measures(tmp_path: Path) -> None:
    project = Project(tmp_path, STUCK)
    first = project.start("-k", FAULTED, when="a round")
    wait_until_it_is_struck(project, first.pid)
    second = project.start(JSON, "-k", "before")
    second.join(0.5)
    assert second.exitcode is None  # it waits for the device
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    ended = project.end(second)
    assert ended.status == 0
    ended.check_said("*1 passed*")
    assert verdicts(project.results) == {"before": [PASSED]}
    assert project.end(first).status == -signal.SIGKILL
    project.check_locks_are_free()


def test_a_killed_process_is_what_the_others_are_about(tmp_path: Path) -> None:
    assert Project(tmp_path, KILLED).run(when="set-up").status == -signal.SIGKILL
