"""SIGKILL, which no process can catch: of the run, of a worker, of the controller of workers."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from inner import AFTER, BASELINE, BEFORE, FAILED, FAULTED, JSON, KILLED, PASSED, SLOW, Project, accepted, verdicts

LEFT = "warning: an earlier run ended before it wrote out.json; what it had measured is in */out.json.partial-1, a results file*"
EARLIER = {SLOW: [FAILED], BEFORE: [PASSED]}
ALL = EARLIER | {FAULTED: [PASSED], AFTER: [PASSED]}
KEPT = "each finished test is in FILE.partial; the next run moves it aside and says so"


@pytest.mark.parametrize(
    ("when", "kept"),
    [
        pytest.param(when, kept, marks=pytest.mark.fault("SIGKILL of the run", told, KEPT), id=when)
        for when, told, kept in [
            ("set-up", "set-up of a test", EARLIER),
            ("a round", "measuring", EARLIER),
            ("teardown", "teardown of a test", EARLIER | {FAULTED: [PASSED]}),
            ("keeping", "writing FILE.partial", EARLIER),
            ("writing results", "writing the results", ALL),
        ]
    ],
)
def test_a_run_that_is_killed(tmp_path: Path, when: str, kept: dict[str, list[tuple[str, str]]]) -> None:
    project = Project(tmp_path, KILLED)
    ended = project.run(JSON, *BASELINE, when=when)
    assert ended.status == -signal.SIGKILL
    project.check_locks_are_free()
    assert not project.baseline.exists()
    assert not project.results.exists()
    assert verdicts(project.partial) == kept
    again = project.run(JSON, *BASELINE)
    again.check_said(LEFT)
    assert again.status == pytest.ExitCode.TESTS_FAILED
    assert verdicts(project.results) == ALL
    assert accepted(project.baseline) == [AFTER, BEFORE, FAULTED]
    assert verdicts(project.partial.with_name("out.json.partial-1")) == kept
    assert not project.partial.exists()


@pytest.mark.fault(
    "SIGKILL of the run",
    "writing the baseline",
    "the baseline is as it was, the results are written; its lock is free",
)
def test_a_run_that_is_killed_while_it_writes_the_baseline(tmp_path: Path) -> None:
    project = Project(tmp_path, KILLED)
    project.run(*BASELINE, "-k", "before")
    before = project.baseline.read_text()
    ended = project.run(JSON, *BASELINE, when="writing the baseline")
    assert ended.status == -signal.SIGKILL
    project.check_locks_are_free()
    assert project.baseline.read_text() == before
    assert verdicts(project.results) == ALL
    assert not project.partial.exists()
    assert project.run(*BASELINE).status == pytest.ExitCode.TESTS_FAILED
    assert accepted(project.baseline) == [AFTER, BEFORE, FAULTED]


WORKER = "a worker of pytest-xdist that dies loses the test that it ran, and nothing else"


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("a round", marks=pytest.mark.fault("SIGKILL of a worker", "measuring", WORKER)),
        pytest.param(
            "sending", marks=pytest.mark.fault("SIGKILL of a worker", "sending what it measured", WORKER)
        ),
    ],
)
def test_a_worker_that_is_killed(tmp_path: Path, when: str) -> None:
    project = Project(tmp_path, KILLED)
    ended = project.run(JSON, *BASELINE, "-n1", when=when)
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said(
        "*worker 'gw0' crashed while running 'test_suite.py::test_it[[]faulted]'*", "*2 failed, 2 passed*"
    )
    project.check_locks_are_free()
    assert verdicts(project.results) == {SLOW: [FAILED], BEFORE: [PASSED], AFTER: [PASSED]}
    assert accepted(project.baseline) == [AFTER, BEFORE]
    assert not project.partial.exists()


@pytest.mark.fault(
    "SIGKILL of the controller of workers",
    "measuring",
    "what the workers sent is in FILE.partial; they notice, and end within about 15 s, which frees the device",
)
def test_a_controller_that_is_killed(tmp_path: Path) -> None:
    project = Project(tmp_path, "os.kill(os.getppid(), signal.SIGKILL)")
    ended = project.run(JSON, *BASELINE, "-n1", when="a round")
    assert ended.status == -signal.SIGKILL
    project.check_locks_are_free(60.0)
    assert verdicts(project.partial) == EARLIER
    assert not project.results.exists()
    assert not project.baseline.exists()
