"""The JSON of pytest-benchmark: read by itself, and by the rules of what else reads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sample_results import EIGHT, with_strategy

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.benchmark_json import (
    LONGEST_NAME,
    NO_COMMIT,
    benchmark_json,
    readable,
    statistics,
    write_benchmarks,
)
from pytest_loraperf.report.results import ComparisonRecord, Results

COMPARISONS = (
    ComparisonRecord(
        arms=("new", "old"),
        interleaved=True,
        samples_s={"new": (1.0, 2.0, 9.0, None), "old": (2.0, 4.0, 18.0, 6.0)},
        dropped=(2,),
        tests={"new": "test_a.py::test_pair", "old": "test_a.py::test_pair"},
    ),
    ComparisonRecord(
        arms=("new",), interleaved=True, samples_s={"new": (1.5,)}, tests={"new": "test_a.py::test_pair"}
    ),
    ComparisonRecord(arms=("fused",), interleaved=True, samples_s={"fused": (1.0,)}),
)
RUN = replace(EIGHT, comparisons=COMPARISONS)


def benchmarks(results: Results) -> dict[str, dict[str, Any]]:
    return {each["fullname"]: each for each in benchmark_json(results, NO_COMMIT)["benchmarks"]}


def test_each_arm_has_its_samples() -> None:
    found = benchmarks(RUN)
    assert list(found) == [
        *(f"synthetic:full::{name}" for name in EIGHT.strategies),
        "test_a.py::test_pair::new",
        "test_a.py::test_pair::old",
    ]
    assert found["synthetic:full::fused"]["stats"]["data"] == list(EIGHT.strategies["fused"].samples_s)
    assert found["test_a.py::test_pair::new"]["stats"]["data"] == [1.0, 2.0]  # the third round was throttled
    assert found["test_a.py::test_pair::old"]["stats"]["data"] == [2.0, 4.0, 6.0]
    fused = found["synthetic:full::fused"]
    assert (fused["group"], fused["name"], fused["param"]) == ("synthetic:full", "fused", "fused")
    assert fused["extra_info"]["vram"]["runtime_peak"] == EIGHT.strategies["fused"].vram.runtime_peak
    assert fused["extra_info"]["verdict"] == "PASS"


def test_a_strategy_of_another_model_has_its_name() -> None:
    found = benchmarks(with_strategy("fused (ours:build)", samples_s=(1.0,), model="ours:build"))
    assert found["ours:build::fused"]["params"] == {"model": "ours:build", "strategy": "fused"}


def test_what_was_not_measured_is_not_there() -> None:
    assert benchmarks(replace(with_strategy("broken", error="it raised"), strategies={})) == {}


# --- what reads it -----------------------------------------------------------------------------------------------


def test_the_fields_are_those_of_pytest_benchmark(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it would measure nothing
    pytester.makepyfile("def test_it(benchmark): benchmark.pedantic(lambda: None, rounds=3)")
    pytester.runpytest("-p", "no:randomly", "-p", "no:asyncio", "--benchmark-json=theirs.json").assert_outcomes(
        passed=1
    )
    theirs = json.loads((pytester.path / "theirs.json").read_text())
    ours = benchmark_json(RUN, NO_COMMIT)
    assert set(ours) == set(theirs)
    assert set(ours["machine_info"]) - {"device"} == set(theirs["machine_info"])
    assert set(ours["commit_info"]) == set(theirs["commit_info"]) - {"error"}
    assert set(ours["benchmarks"][0]) == set(theirs["benchmarks"][0])
    assert list(ours["benchmarks"][0]["stats"]) == list(theirs["benchmarks"][0]["stats"])


seconds = st.floats(min_value=1e-6, max_value=1e5)


@given(st.lists(seconds, min_size=1, max_size=40))
def test_the_statistics_are_those_of_pytest_benchmark(samples: list[float]) -> None:
    from pytest_benchmark.stats import Stats

    theirs = Stats()  # type: ignore[no-untyped-call]  # it has no annotations
    theirs.data = list(samples)
    ours = statistics(samples)
    same = ("min", "max", "mean", "stddev", "rounds", "median", "ops", "total")
    assert [ours[name] for name in same] == pytest.approx([getattr(theirs, name) for name in same])
    # Theirs are other quartiles: there are a dozen definitions.
    assert ours["min"] <= ours["ld15iqr"] <= ours["hd15iqr"] <= ours["max"]
    assert ours["q1"] <= ours["median"] <= ours["q3"]
    assert ours["iqr"] == ours["q3"] - ours["q1"]
    assert re.fullmatch(r"\d+;\d+", ours["outliers"])


def test_outliers_are_counted() -> None:
    found = statistics([1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 9.0])
    assert (found["iqr_outliers"], found["stddev_outliers"], found["outliers"]) == (1, 1, "1;1")
    assert (found["ld15iqr"], found["hd15iqr"]) == (0.9, 1.1)


def test_no_time_at_all_is_no_rate() -> None:
    assert statistics([0.0, 0.0])["ops"] == 0


def test_pytest_benchmark_compares_our_files(pytester: pytest.Pytester) -> None:
    write_benchmarks(pytester.path / "base.json", RUN)
    slower = {name: replace(found, samples_s=(9.0, 9.5)) for name, found in RUN.strategies.items()}
    write_benchmarks(pytester.path / "new.json", replace(RUN, strategies=slower))
    result = pytester.run("pytest-benchmark", "compare", "base.json", "new.json", "--group-by=fullname")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*benchmark 'synthetic:full::fused': 2 tests*", "Name *Min*Median*OPS*"])
    result.stdout.fnmatch_lines(["fused (base) *", "fused (new) *"])
    assert "Failed to load" not in result.stderr.str()


def test_github_action_benchmark_finds_what_it_reads() -> None:
    data = json.loads(json.dumps(benchmark_json(RUN, NO_COMMIT), allow_nan=False))
    for each in data["benchmarks"]:
        stats = each["stats"]
        assert isinstance(each["fullname"], str)
        assert all(isinstance(stats[name], int | float) for name in ("ops", "stddev", "mean", "rounds"))
        assert stats["ops"] == pytest.approx(1 / stats["mean"])


def test_bencher_finds_what_it_reads() -> None:
    data = json.loads(json.dumps(benchmark_json(RUN, NO_COMMIT), allow_nan=False))
    assert isinstance(data["machine_info"], dict)
    assert isinstance(data["commit_info"], dict)
    for each in data["benchmarks"]:
        assert 0 < len(each["fullname"].encode()) <= LONGEST_NAME
        assert all(isinstance(each["stats"][name], float) for name in ("median", "iqr"))


# --- names and files ---------------------------------------------------------------------------------------------


@example(" ", 1)
@example("\r", 1)
@given(st.text(alphabet=st.characters(), max_size=30), st.integers(1, 500))
def test_names_are_readable_and_told_apart(name: str, times: int) -> None:
    found = readable(name * times)
    assert len(found.encode()) <= LONGEST_NAME
    assert found.isprintable()
    assert readable(found) == found
    if found != name * times:
        assert re.search(r" \[[0-9a-f]{8}\]$", found)
        assert readable(name * times + "x") != found


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "b.json"
    with pytest.raises(LoraperfError) as caught:
        write_benchmarks(path, RUN)
    assert str(caught.value) == (
        f"benchmarks {path}: cannot be written: File exists; name a file in a folder that can be written"
    )
