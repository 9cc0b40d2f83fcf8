"""A clock that goes back or stands still: no time that is none becomes a verdict."""

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

BACK = "CLOCK.now -= 1000.0"
STILL = "CLOCK.spend = lambda _: None"
ERROR = ("error", "FAIL")
OTHERS = {SLOW: [FAILED], BEFORE: [PASSED], AFTER: [PASSED]}
NO_TIME = "the test fails with one line; the samples from before are kept, and none is made of it"


@pytest.mark.fault("the clock goes back", "measuring", NO_TIME)
def test_a_clock_that_goes_back_in_a_round(tmp_path: Path) -> None:
    project = Project(tmp_path, BACK)
    ended = project.run(JSON, *BASELINE, when="a round")
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    message = (
        "faulted: the clock went back by 998.0 s during a call; no time can be told by it; look what sets it (a virtual "
        "machine that was moved or paused), and run again"
    )
    ended.check_said(f"loraperf: {message}", "*2 failed, 2 passed*")
    project.check_locks_are_free()
    assert verdicts(project.results) == OTHERS | {FAULTED: [ERROR]}
    found = read(project.results)
    assert [each["message"] for each in found["verdicts"] if each["code"] == "error"] == [message]
    assert [each["samples_s"] for each in found["comparisons"] if each["errors"]] == [{FAULTED: [2.0, 2.0]}]
    assert accepted(project.baseline) == [AFTER, BEFORE]


@pytest.mark.fault("the clock stands still", "measuring", NO_TIME)
def test_a_clock_that_stands_still_from_a_round_on(tmp_path: Path) -> None:
    project = Project(tmp_path, STILL)
    ended = project.run(JSON, *BASELINE, when="a round")
    ended.check_said(
        "loraperf: faulted: a call took no time by the clock, which is too coarse or stands still; repeat the work "
        "inside the callable, or mend the clock"
    )
    assert verdicts(project.results) == {SLOW: [FAILED], BEFORE: [PASSED], FAULTED: [ERROR], AFTER: [ERROR]}
    assert all(count < 9 for name, count in samples(project.results).items() if name in (FAULTED, AFTER))
    assert accepted(project.baseline) == [BEFORE]


PAIR = """
    import pytest
    from conftest import reach

    @pytest.mark.faster_than("old")
    def test_pair(gpu_workload, clock):
        calls = []

        def old():
            clock.spend(2.0)
            calls.append(0)
            if len(calls) == 6:
                reach("a round of the reference")

        gpu_workload(clock.spend, 3.0, name="new")
        gpu_workload(old)
"""


@pytest.mark.parametrize("fault", [BACK, STILL])
@pytest.mark.fault("the clock goes back", "measuring a reference", NO_TIME)
def test_a_clock_that_goes_back_under_the_reference(tmp_path: Path, fault: str) -> None:
    project = Project(tmp_path, fault, PAIR)
    ended = project.run(JSON, when="a round of the reference")
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said("loraperf: *", "*1 failed*")
    assert verdicts(project.results) == {"test_pair": [ERROR]}
    kept = [seconds for each in read(project.results)["comparisons"][0]["samples_s"].values() for seconds in each]
    assert min(seconds for seconds in kept if seconds is not None) == 2.0


@pytest.mark.fault("the date goes back", "measuring", "nothing: no time is taken by it")
def test_a_date_that_goes_back_in_a_round(tmp_path: Path) -> None:
    project = Project(tmp_path, "import time; time.time = lambda: 1.0; time.time_ns = lambda: 10**9")
    ended = project.run(JSON, *BASELINE, when="a round")
    ended.check_said("*1 failed, 3 passed*")
    assert verdicts(project.results) == OTHERS | {FAULTED: [PASSED]}
    assert accepted(project.baseline) == [AFTER, BEFORE, FAULTED]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.fault(
    "the date goes back",
    "between two runs",
    "a record of a day to come is stale: a warning, a failure where the run is strict; slower is still told",
)
def test_a_date_before_that_of_the_baseline(tmp_path: Path, strict: bool) -> None:
    project = Project(tmp_path, "pass")
    project.run(*BASELINE)
    day = next(iter(read_records(project.baseline)))["last"]["created"]
    project.baseline.write_text(project.baseline.read_text().replace(day, "2999-01-01"))
    ended = project.run(JSON, BASELINE[0], "-k", "before", *(["--loraperf-strict"] if strict else []))
    assert ended.status == int(strict)
    ended.check_said("*the baseline of before is of '2999-01-01', no day up to today; make it anew with: *")
    status = "FAIL" if strict else "SKIPPED"
    assert verdicts(project.results) == {BEFORE: [PASSED, ("baseline-stale", status), ("baseline", "PASS")]}


def read_records(path: Path) -> list[dict[str, dict[str, str]]]:
    import json

    return [each for each in json.loads(path.read_text())["records"].values() if each]
