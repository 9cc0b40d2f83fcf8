"""Under pytest-xdist: the same verdicts, table and files as without."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

CPU = "--loraperf-device=cpu"
SUITE = """
    import pytest

    @pytest.mark.latency_budget("3s")
    @pytest.mark.parametrize("seconds", [2.0, 4.0])
    def test_step(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name=f"step{seconds:g}")

    @pytest.mark.latency_budget(ratio=0.9, of="old")
    def test_pair(gpu_workload, clock):
        gpu_workload(clock.spend, 1.0, name="new")
        gpu_workload(clock.spend, 2.0, name="old")

    def test_plain():
        pass
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CI", raising=False)


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    result = pytester.runpytest_subprocess(CPU, "--loraperf-json=out.json", *arguments)
    return result, json.loads((pytester.path / "out.json").read_text())


def verdicts(data: dict[str, Any]) -> list[tuple[str, ...]]:
    return sorted((each["nodeid"], each["code"], each["status"], each["message"]) for each in data["verdicts"])


def test_workers_give_the_same_verdicts_and_samples(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SUITE)
    alone, expected = run(clocked, "-n0")
    alone.assert_outcomes(passed=3, failed=1)
    for workers in ("-n1", "-n3"):
        result, data = run(clocked, workers)
        result.assert_outcomes(passed=3, failed=1)
        assert verdicts(data) == verdicts(expected)
        assert sorted(each["arms"] for each in data["comparisons"]) == sorted(
            each["arms"] for each in expected["comparisons"]
        )
        assert data["command"].endswith(f"{CPU} --loraperf-json=out.json {workers}")
        result.stdout.fnmatch_lines(["*::test_pair passed its latency gate by far; it could be:"])


@pytest.mark.parametrize("workers", ["-n0", "-n1", "-n2"])
def test_a_marker_that_cannot_be_used_is_told_as_without_workers(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.vram_budget("12 parsecs")
        def test_it(fused_pipeline):
            pass

        def test_other():
            pass
        """
    )
    result = pytester.runpytest_subprocess(CPU, workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: 1 test has a marker that cannot be used:",
            "*::test_it: @pytest.mark.vram_budget: size '12 parsecs': write a positive number and a unit, *",
        ]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.assert_outcomes()


def test_the_table_of_a_strategy_comes_from_its_workers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("fused", "standard_lora")
        @pytest.mark.latency_budget("60s")
        @pytest.mark.vram_budget("1MB")
        def test_it(lora_pipeline):
            lora_pipeline()
    """)
    result, data = run(pytester, "-n2")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["strategy *s/generation*", "standard_lora *FAIL", "fused *FAIL"])
    assert list(data["strategies"]) == ["standard_lora", "fused"]
    assert all(each["samples_s"] and each["vram"]["runtime_peak"] for each in data["strategies"].values())


def test_a_baseline_is_updated_and_holds(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SUITE)
    base = "--loraperf-baseline=base.json"
    result, _ = run(clocked, "-n2", base, "--loraperf-update-baseline")
    result.stdout.fnmatch_lines(
        ["baseline *base.json: accepted *; commit it", "*step4 is not accepted, since a gate of*"]
    )
    records = json.loads((clocked.path / "base.json").read_text())["records"]
    assert sorted(each["subject"]["name"] for each in records.values() if each) == ["new", "step2"]
    held, data = run(clocked, "-n2", base)
    held.assert_outcomes(passed=3, failed=1)
    assert [each["status"] for each in data["verdicts"] if each["code"] == "baseline"] == ["PASS", "PASS"]


def test_no_measurement_overlaps_another(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import time
        import pytest

        @pytest.mark.latency_budget("10s")
        @pytest.mark.parametrize("name", "abc")
        def test_it(gpu_workload, name):
            def work():
                start = time.time()
                time.sleep(0.02)
                with open("spans.txt", "a") as file:
                    file.write(f"{start} {time.time()} {name}\\n")

            gpu_workload(work, name=name)
            time.sleep(0.1)
            open("spans.txt", "a").close()
    """)
    result, data = run(pytester, "-n3")
    result.assert_outcomes(passed=3)
    assert len(data["comparisons"]) == 3
    lines = [line.split() for line in (pytester.path / "spans.txt").read_text().splitlines()]
    # The first call of each is the test's own, which measures nothing.
    measured = sorted(
        (float(start), float(end), name)
        for number, (start, end, name) in enumerate(lines)
        if name in {each[2] for each in lines[:number]}
    )
    names = [name for _, _, name in measured]
    assert sum(one != other for one, other in pairwise(names)) == 2  # in one piece each
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(measured))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("del report.loraperf", "sent nothing; give all workers one version of this plugin, or try -n0"),
        ("report.loraperf = {'wire': 99}", "sent what this version cannot read; give all workers one version of*"),
        ("report.loraperf['results']['schema'] = 9", "results.schema is 9, this version reads 1; measure again*"),
    ],
)
def test_what_a_worker_fails_to_send_fails_the_run(clocked: pytest.Pytester, sent: str, message: str) -> None:
    conftest = Path(clocked.path / "conftest.py")
    conftest.write_text(
        conftest.read_text()
        + "\n".join(
            (
                "",
                "@pytest.hookimpl(wrapper=True, tryfirst=True)",
                "def pytest_runtest_makereport(item):",
                "    report = yield",
                "    if hasattr(report, 'loraperf'):",
                f"        {sent}",
                "    return report",
            )
        )
    )
    clocked.makepyfile(SUITE)
    result = clocked.runpytest_subprocess(CPU, "--loraperf-json=out.json", "-n1", "-k", "2.0")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines([f"error: worker gw0*{message}"])


def test_a_race_reaches_the_files_too(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        def test_it(lora_race, clock):
            race = lora_race(new=lambda: clock.spend(1.0), old=lambda: clock.spend(2.0))
            assert race.ratio("new", of="old") == 0.5
    """)
    for workers in ("-n0", "-n1"):
        result, data = run(clocked, workers)
        result.assert_outcomes(passed=1)
        assert [each["arms"] for each in data["comparisons"]] == [["new", "old"]]


@pytest.mark.parametrize("by_ini", [False, True])
def test_each_worker_sees_a_gpu_of_its_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, by_ini: bool
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pytester.makepyfile("""
        import os
        import pytest

        SEEN_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")

        @pytest.mark.parametrize("number", range(8))
        def test_it(number, worker_id, record_property):
            assert SEEN_AT_IMPORT == {"gw0": "5", "gw1": "7"}[worker_id]
    """)
    if by_ini:
        pytester.makeini("[pytest]\nloraperf_gpus = 5,7")
    pytester.runpytest_subprocess("-n2", *([] if by_ini else ["--loraperf-gpus=5,7"])).assert_outcomes(passed=8)


def test_gpus_that_are_not_understood(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-n2", "--loraperf-gpus=some")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: --loraperf-gpus: got 'some'; allowed are auto, or numbers or UUIDs of GPUs such as 0,1"]
    )
