"""Records that no test of a run measured, and where the files of the options are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BASE = "--loraperf-baseline=base.json"
UPDATE = "--loraperf-update-baseline"
LEFT = (
    "baseline *base.json: 1 record measured by no test of this run (gone): the tests failed, were skipped or are*"
)
SUITE = """
    import pytest

    @pytest.mark.latency_budget("5s")
    @pytest.mark.parametrize("name", {names})
    def test_it(gpu_workload, clock, name):
        gpu_workload(clock.spend, 1.0, name=name)

    def test_plain():
        pass
"""


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def left(clocked: pytest.Pytester) -> pytest.Pytester:
    """A project whose baseline has a record of a test that is gone."""
    clocked.makepyfile(SUITE.format(names=["gone", "here"]))
    result = clocked.runpytest_inprocess(BASE, UPDATE)
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*measured by no test*")
    clocked.makepyfile(SUITE.format(names=["here"]))
    return clocked


@pytest.mark.parametrize("arguments", [(), ("--loraperf-strict",), (UPDATE,)])
def test_a_record_that_no_test_measured_is_told_and_fails_nothing(
    left: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    result = left.runpytest_inprocess(BASE, *arguments)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([LEFT])


@pytest.mark.parametrize("arguments", [("-k", "here"), ("-m", "latency_budget"), ("--deselect=x",), ("--co",)])
def test_a_run_of_some_tests_says_nothing(left: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    left.runpytest_inprocess(BASE, *arguments).stdout.no_fnmatch_line("*measured by no test*")


@pytest.mark.parametrize("what", ["{}::test_it", "{}"])
def test_nor_does_one_of_named_tests(left: pytest.Pytester, what: str) -> None:
    (file,) = left.path.glob("test_*.py")
    left.runpytest_inprocess(BASE, what.format(file.name)).stdout.no_fnmatch_line("*measured by no test*")


def test_nor_does_one_that_a_plugin_deselects_from_or_that_stops(left: pytest.Pytester) -> None:
    conftest = left.path / "conftest.py"
    deselecting = """
def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=items[1:])
    del items[1:]
"""
    conftest.write_text(conftest.read_text() + deselecting)
    for workers in ("-n0", "-n2"):
        result = left.runpytest_subprocess(BASE, workers)
        result.assert_outcomes(passed=1)
        result.stdout.no_fnmatch_line("*measured by no test*")
    left.makepyfile(SUITE.format(names=["here"]).replace("pass", "assert False"))
    left.makeconftest("")
    left.runpytest_subprocess(BASE, "-x").stdout.no_fnmatch_line("*measured by no test*")


def test_workers_measure_for_all(left: pytest.Pytester) -> None:
    result = left.runpytest_subprocess(BASE, "-n2")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([LEFT])


def test_paths_of_the_ini_are_relative_to_it_and_those_of_the_command_line_to_the_folder(
    clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked.makepyfile(SUITE.format(names=["here"]))
    clocked.makeini("[pytest]\nloraperf_baseline = stored/base.json\nloraperf_json = out/results.json")
    below = clocked.mkdir("below")
    monkeypatch.chdir(below)
    clocked.runpytest_inprocess("..", UPDATE).assert_outcomes(passed=2)
    assert json.loads((clocked.path / "stored" / "base.json").read_text())["records"]
    assert json.loads((clocked.path / "out" / "results.json").read_text())["verdicts"]
    assert list(below.rglob("*.json")) == []

    options = (UPDATE, "--loraperf-baseline=mine.json", "--loraperf-json=mine/results.json")
    clocked.runpytest_inprocess("..", *options).assert_outcomes(passed=2)
    assert sorted(str(path.relative_to(below)) for path in below.rglob("*.json")) == [
        "mine.json",
        "mine/results.json",
    ]


@pytest.mark.parametrize("by_ini", [True, False])
def test_an_adapter_is_found_likewise(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, by_ini: bool
) -> None:
    pytester.makepyfile("""
        def test_it(lora_adapter):
            print("adapters:", *lora_adapter)
    """)
    if by_ini:
        pytester.makeini("[pytest]\nloraperf_adapter =\n    a.safetensors:0.8\n    /abs/b.safetensors")
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    options = [] if by_ini else ["--loraperf-adapter=a.safetensors:0.8", "--loraperf-adapter=/abs/b.safetensors"]
    result = pytester.runpytest_inprocess("..", "-s", *options)
    folder: Path = pytester.path if by_ini else below
    result.stdout.fnmatch_lines([f"*adapters: {folder}/a.safetensors:0.8 /abs/b.safetensors*"])


def test_a_file_is_written_where_the_run_began(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import os

        def test_it(gpu_workload, tmp_path):
            gpu_workload(os.chdir, tmp_path)
    """)
    clocked.runpytest_subprocess("--loraperf-json=out.json").assert_outcomes(passed=1)
    assert (clocked.path / "out.json").exists()
