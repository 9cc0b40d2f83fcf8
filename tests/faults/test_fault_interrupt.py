"""SIGINT, which Python raises as KeyboardInterrupt: what was measured is shown and written all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import (
    AFTER,
    BASELINE,
    BEFORE,
    FAILED,
    FAULTED,
    JSON,
    PASSED,
    SLOW,
    Project,
    accepted,
    read,
    samples,
    verdicts,
)

INTERRUPTED = "signal.raise_signal(signal.SIGINT)"
ERROR = ("error", "FAIL")
EARLIER = {SLOW: [FAILED], BEFORE: [PASSED]}
TOLD = "exit status 2; the summary and the results have what was measured, and the test is no pass"


@pytest.mark.parametrize(
    ("when", "found"),
    [
        pytest.param(when, found, marks=pytest.mark.fault("KeyboardInterrupt", told, TOLD), id=when)
        for when, told, found in [
            ("set-up", "set-up of a test", [ERROR]),
            ("a round", "measuring", [ERROR]),
            ("teardown", "teardown of a test", [PASSED, ERROR]),
        ]
    ],
)
def test_a_run_that_is_interrupted(tmp_path: Path, when: str, found: list[tuple[str, str]]) -> None:
    project = Project(tmp_path, INTERRUPTED)
    ended = project.run(JSON, *BASELINE, when=when)
    assert ended.status == pytest.ExitCode.INTERRUPTED
    ended.check_said("test_suite.py::test_it[[]before] passed its latency gate by far*", "*KeyboardInterrupt*")
    project.check_locks_are_free()
    assert verdicts(project.results) == EARLIER | {FAULTED: found}
    assert read(project.results)["verdicts"][-1]["message"].startswith("it was interrupted: KeyboardInterrupt")
    assert accepted(project.baseline) == [BEFORE]
    assert not project.partial.exists()


def test_rounds_that_were_taken_before_an_interrupt_are_kept(tmp_path: Path) -> None:
    project = Project(tmp_path, INTERRUPTED)
    project.run(JSON, when="a round")
    assert samples(project.results)[FAULTED] == 2


WRITING = "exit status 2; FILE.partial has it all, and the summary names it"


@pytest.mark.fault("KeyboardInterrupt", "writing the results", WRITING)
def test_an_interrupt_while_the_results_are_written(tmp_path: Path) -> None:
    project = Project(tmp_path, INTERRUPTED)
    ended = project.run(JSON, *BASELINE, when="writing results")
    assert ended.status == pytest.ExitCode.INTERRUPTED
    ended.check_said(
        "error: interrupted while the results were written; run it again; what was measured until then is in "
        "*/out.json.partial"
    )
    project.check_locks_are_free()
    assert verdicts(project.partial) == EARLIER | {FAULTED: [PASSED], AFTER: [PASSED]}
    assert sorted(each.name for each in project.results.parent.iterdir() if "lock" not in each.name) == [
        "out.json.partial"
    ]


@pytest.mark.fault("KeyboardInterrupt", "writing the baseline", "exit status 2; the baseline is as it was")
def test_an_interrupt_while_the_baseline_is_written(tmp_path: Path) -> None:
    project = Project(tmp_path, INTERRUPTED)
    ended = project.run(JSON, *BASELINE, when="writing the baseline")
    assert ended.status == pytest.ExitCode.INTERRUPTED
    ended.check_said("error: interrupted while the results were written; run it again")
    project.check_locks_are_free()
    assert not project.baseline.exists()
    assert set(verdicts(project.results)) == {SLOW, BEFORE, FAULTED, AFTER}


@pytest.mark.fault(
    "KeyboardInterrupt", "measuring, with workers", "exit status 2; what the workers sent is written"
)
def test_a_controller_that_is_interrupted(tmp_path: Path) -> None:
    project = Project(tmp_path, "os.kill(os.getppid(), signal.SIGINT)\n    import time; time.sleep(60)")
    ended = project.run(JSON, *BASELINE, "-n2", "--dist=loadfile", when="a round")
    assert ended.status == pytest.ExitCode.INTERRUPTED
    ended.check_said("*test_it[[]before] passed its latency gate by far*", "*KeyboardInterrupt*")
    project.check_locks_are_free(60.0)
    assert verdicts(project.results) == EARLIER
    assert accepted(project.baseline) == [BEFORE]
    assert not project.partial.exists()
