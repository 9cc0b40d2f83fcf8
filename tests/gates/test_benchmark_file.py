"""--loraperf-benchmark-json: written whatever becomes of the run, by the controller where there are workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CPU = "--loraperf-device=cpu"
FILE = "--loraperf-benchmark-json=bench.json"
SUITE = """
    import pytest

    @pytest.mark.latency_budget("3s")
    @pytest.mark.parametrize("seconds", [2.0, 4.0])
    def test_step(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name="step")

    def test_race(lora_race, clock):
        lora_race(new=lambda: clock.spend(1.0), old=lambda: clock.spend(2.0), rounds=3)
"""
EXPECTED = {
    "test_it.py::test_step[2.0]::step": [2.0] * 9,
    "test_it.py::test_step[4.0]::step": [4.0] * 9,
    "test_it.py::test_race::new": [1.0] * 3,
    "test_it.py::test_race::old": [2.0] * 3,
}


def written(path: Path) -> dict[str, list[float]]:
    data: dict[str, Any] = json.loads((path / "bench.json").read_text(encoding="utf-8"))
    return {each["fullname"]: each["stats"]["data"] for each in data["benchmarks"]}


@pytest.mark.parametrize("way", ["option", "ini"])
def test_each_arm_is_written_though_tests_fail(clocked: pytest.Pytester, way: str) -> None:
    clocked.makepyfile(test_it=SUITE)
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_benchmark_json = bench.json")
    result = clocked.runpytest(CPU, *([FILE] if way == "option" else []))
    result.assert_outcomes(passed=2, failed=1)
    assert written(clocked.path) == EXPECTED


def test_workers_give_the_same(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(test_it=SUITE)
    clocked.runpytest_subprocess(CPU, FILE, "-n2").assert_outcomes(passed=2, failed=1)
    assert written(clocked.path) == EXPECTED


def test_an_interrupted_run_leaves_what_it_has(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(
        test_it=SUITE
        + """
    def test_zz():
        raise KeyboardInterrupt

    def test_zzz():
        pass
"""
    )
    result = clocked.runpytest_subprocess(CPU, FILE)  # in this process it would interrupt this run too
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert written(clocked.path) == EXPECTED


def test_a_strategy_has_a_name_that_does_not_change_with_the_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget(ratio=100, of="standard_lora")
        def test_it(fused_pipeline):
            fused_pipeline()
    """)
    pytester.runpytest(CPU, FILE, "--loraperf-rounds=3").assert_outcomes(passed=1)
    found = written(pytester.path)
    assert sorted(found) == ["synthetic:tiny::fused", "synthetic:tiny::standard_lora"]
    assert all(len(samples) == 3 for samples in found.values())


def test_a_run_that_measures_nothing_has_no_benchmarks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest(FILE).assert_outcomes(passed=1)
    assert written(pytester.path) == {}


@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_file_that_cannot_be_written_is_told_before_anything_runs(pytester: pytest.Pytester, way: str) -> None:
    pytester.path.joinpath("file").write_text("")
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_benchmark_json = file/b.json")
    result = pytester.runpytest(*(["--loraperf-benchmark-json=file/b.json"] if way == "option" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: --loraperf-benchmark-json=*file/b.json: cannot be written: *File exists"]
    )


def test_two_files_of_one_name(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--loraperf-json=out.json", "--loraperf-benchmark-json=./out.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: --loraperf-json and --loraperf-benchmark-json name the same file; "
            "give each a file of its own"
        ]
    )
    assert not (pytester.path / "out.json").exists()


def test_a_folder_that_goes_away_meanwhile_fails_the_run(
    clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # in one line, however long the path is
    clocked.makepyfile("""
        import pathlib
        import shutil

        def test_it(lora_race, clock):
            lora_race(new=lambda: clock.spend(1.0), old=lambda: clock.spend(2.0), rounds=3)
            shutil.rmtree("deep")
            pathlib.Path("deep").write_text("in the way")
    """)
    (clocked.path / "deep").mkdir()
    result = clocked.runpytest(CPU, "--loraperf-benchmark-json=deep/b.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(
        ["error: benchmarks *deep/b.json: cannot be written: File exists; name a file in a*"]
    )
