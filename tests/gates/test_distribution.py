"""Ways to choose, repeat and distribute tests: the verdicts and the results file hold what was run, each test once."""

from __future__ import annotations

import json
from typing import Any

import pytest

CPU = "--loraperf-device=cpu"
SLOW, FAST = "test_a.py::TestOne::test_slow", "test_a.py::TestOne::test_fast"
OTHERS = ["test_b.py::test_pair", "test_b.py::test_plain"]
ALL = sorted([SLOW, FAST, *OTHERS])
FIRST = """
    import pytest

    class TestOne:
        @pytest.mark.latency_budget("3s")
        def test_slow(self, gpu_workload, clock):
            gpu_workload(clock.spend, 4.0, name="slow")

        @pytest.mark.xdist_group("gpu")
        @pytest.mark.latency_budget("3s")
        def test_fast(self, gpu_workload, clock):
            gpu_workload(clock.spend, 2.0, name="fast")
"""
SECOND = """
    import pytest

    @pytest.mark.xdist_group("gpu")
    @pytest.mark.latency_budget(ratio=0.9, of="old")
    def test_pair(gpu_workload, clock):
        gpu_workload(clock.spend, 1.0, name="new")
        gpu_workload(clock.spend, 2.0, name="old")

    @pytest.mark.latency_budget("3s")
    def test_plain(gpu_workload, clock):
        gpu_workload(clock.spend, 1.0, name="plain")
"""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def suite(clocked: pytest.Pytester) -> pytest.Pytester:
    """Two files; one test of four is over its budget."""
    clocked.makepyfile(test_a=FIRST, test_b=SECOND)
    return clocked


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    result = pytester.runpytest_subprocess(CPU, "--loraperf-json=out.json", *arguments)
    return result, json.loads((pytester.path / "out.json").read_text())


def judged(data: dict[str, Any]) -> dict[str, str]:
    """The verdicts by test, which has each test once; ``--dist loadgroup`` adds the group to its name."""
    found = sorted((each["nodeid"].partition("@")[0], each["status"]) for each in data["verdicts"])
    assert len(dict(found)) == len(found)
    return dict(found)


def expected(*nodeids: str) -> dict[str, str]:
    return {nodeid: "FAIL" if nodeid == SLOW else "PASS" for nodeid in sorted(nodeids)}


@pytest.mark.parametrize("mode", ["loadgroup", "worksteal"])
def test_each_way_to_distribute_gives_the_same_verdicts(suite: pytest.Pytester, mode: str) -> None:
    result, data = run(suite, "-n2", f"--dist={mode}")
    result.assert_outcomes(passed=3, failed=1)
    assert judged(data) == expected(*ALL)
    assert sorted(each["arms"] for each in data["comparisons"]) == [["fast"], ["new", "old"], ["plain"], ["slow"]]


def test_every_worker_judges_every_test(suite: pytest.Pytester) -> None:
    result, data = run(suite, "--dist=each", "--tx=2*popen", "-k", "TestOne")
    result.assert_outcomes(passed=2, failed=2)
    found = sorted((each["nodeid"], each["status"]) for each in data["verdicts"])
    assert found == [(FAST, "PASS"), (FAST, "PASS"), (SLOW, "FAIL"), (SLOW, "FAIL")]


@pytest.mark.parametrize("stop", ["-x", "--maxfail=1"])
def test_a_run_that_stops_keeps_what_was_judged(suite: pytest.Pytester, stop: str) -> None:
    result, data = run(suite, "-n1", stop, "test_b.py::test_plain", SLOW, FAST, "test_b.py::test_pair")
    assert result.ret in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    assert judged(data).items() >= expected("test_b.py::test_plain", SLOW).items()
    assert "test_b.py::test_pair" not in judged(data)


def test_only_what_failed_last_is_judged_again(suite: pytest.Pytester) -> None:
    suite.runpytest(CPU).assert_outcomes(passed=3, failed=1)
    result, data = run(suite, "-n1", "--lf")
    result.assert_outcomes(failed=1)
    assert judged(data) == expected(SLOW)


def test_a_test_that_is_run_again_has_the_last_verdict(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_c="""
        import pytest

        TIMES = [4.0, 2.0]

        @pytest.mark.latency_budget("3s")
        def test_slow_once(gpu_workload, clock):
            gpu_workload(clock.spend, TIMES.pop(0), name="once")
        """
    )
    result, data = run(suite, "-n2", "--dist=loadscope", "--reruns=1", "test_a.py", "test_c.py")
    result.stdout.fnmatch_lines(["*1 failed, 2 passed, 2 rerun in *"])
    assert judged(data) == expected(SLOW, FAST, "test_c.py::test_slow_once")


def test_the_groups_of_a_split_run_are_the_whole(suite: pytest.Pytester) -> None:
    _, one = run(suite, "-n2", "--dist=loadfile", "--splits=2", "--group=1")
    suite.runpytest(CPU, "--loraperf-json=two.json", "--splits=2", "--group=2")
    two = json.loads((suite.path / "two.json").read_text())
    assert len(judged(one)) == len(judged(two)) == 2
    assert judged(one) | judged(two) == expected(*ALL)
    assert judged(one).keys().isdisjoint(judged(two))
