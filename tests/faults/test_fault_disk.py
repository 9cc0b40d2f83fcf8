"""A disk that is full, and a folder that cannot be written: nothing measured is lost, and it is said in one line."""

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
    need_mounts,
    verdicts,
)

FULL = 'raise OSError(errno.ENOSPC, "No space left on device")'
ALL = {SLOW: [FAILED], BEFORE: [PASSED], FAULTED: [PASSED], AFTER: [PASSED]}
PROBLEM = pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.fault("disk full", "writing FILE.partial", "a warning; the results are written at the end")
def test_full_while_the_journal_is_written(tmp_path: Path) -> None:
    project = Project(tmp_path, FULL)
    ended = project.run(JSON, when="keeping")
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said(
        "warning: results *out.json.partial: cannot be written: No space left on device; name a file in a folder that "
        "can be written; until the end of this run its results are in memory alone"
    )
    assert ended.said.count("in memory alone") == 1
    assert verdicts(project.results) == ALL
    assert not project.partial.exists()


TOLD = "exit status 3 and one line; the table is shown, and FILE.partial has it all"


@pytest.mark.fault("disk full", "writing the results", TOLD)
def test_full_while_the_results_are_written(tmp_path: Path) -> None:
    project = Project(tmp_path, FULL)
    ended = project.run(JSON, *BASELINE, when="writing results")
    assert ended.status == PROBLEM
    ended.check_said(
        "test_suite.py::test_it[[]before] passed its latency gate by far*",
        "error: results *out.json: cannot be written: No space left on device; name a file in a folder that can be "
        "written; what was measured until then is in *out.json.partial",
    )
    project.check_locks_are_free()
    assert not project.results.exists()
    assert verdicts(project.partial) == ALL
    assert accepted(project.baseline) == [AFTER, BEFORE, FAULTED]


@pytest.mark.fault("disk full", "writing the baseline", "exit status 3 and one line; the baseline is as it was")
def test_full_while_the_baseline_is_written(tmp_path: Path) -> None:
    project = Project(tmp_path, FULL)
    project.run(*BASELINE, "-k", "before")
    before = project.baseline.read_text()
    ended = project.run(JSON, *BASELINE, when="writing the baseline")
    assert ended.status == PROBLEM
    ended.check_said("error: baseline *base.json: cannot be written: No space left on device; nothing was changed")
    project.check_locks_are_free()
    assert project.baseline.read_text() == before
    assert verdicts(project.results) == ALL


@pytest.mark.fault(
    "disk full", "from the second test on, a real disk", TOLD.replace("it all", "what it has room for")
)
def test_no_room_from_some_test_on(tmp_path: Path) -> None:
    need_mounts()
    project = Project(tmp_path, "pass")
    ended = project.run(JSON, before="fill")
    assert ended.status == PROBLEM
    full = "cannot be written: No space left on device; name a file in a folder that can be written"
    ended.check_said(
        "test_suite.py::test_it[[]after] passed its latency gate by far*",
        f"warning: results *out.json.partial: {full}; until the end of this run its results are in memory alone",
        f"error: results *out.json: {full}; what was measured until then is in *out.json.partial",
    )


READ_ONLY = "a usage error, before anything is measured"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            (JSON,),
            "ERROR: loraperf: --loraperf-json=out/out.json: cannot be written: *",
            marks=pytest.mark.fault("read-only folder", "the start, for the results", READ_ONLY),
        ),
        pytest.param(
            BASELINE,
            "ERROR: loraperf: --loraperf-baseline=*/base.json: cannot be written: *",
            marks=pytest.mark.fault("read-only folder", "the start, for the baseline", READ_ONLY),
        ),
    ],
)
def test_read_only_from_the_start(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    need_mounts(of_root_alone=True)
    project = Project(tmp_path, "pass")
    ended = project.run(*arguments, before="make_read_only")
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    ended.check_said(message)
    assert "test_suite.py" not in ended.said


@pytest.mark.fault(
    "read-only folder",
    "measuring",
    "exit status 3 and one line for each file; the table is shown, FILE.partial has what was kept before",
)
def test_read_only_in_the_midst(tmp_path: Path) -> None:
    need_mounts(of_root_alone=True)
    project = Project(tmp_path, "import inner; inner.make_read_only(HERE)")
    ended = project.run(JSON, *BASELINE, when="a round")
    assert ended.status == PROBLEM
    ended.check_said(
        "test_suite.py::test_it[[]after] passed its latency gate by far*",
        "warning: results *out.json.partial: cannot be written: *; until the end of this run*",
        "error: results *out.json: cannot be written: *; what was measured until then is in *out.json.partial",
        "error: baseline *base.json: cannot be *; nothing was changed",
    )
    project.results.parent.chmod(0o755)
    project.check_locks_are_free()
    assert verdicts(project.partial) == {SLOW: [FAILED], BEFORE: [PASSED]}
