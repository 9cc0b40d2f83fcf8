"""Several results files: their order, what belongs together, and what changed from one to the next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.cli import main
from pytest_loraperf.compare.history import Group, history, history_lines, read_runs
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import (
    ComparisonRecord,
    Latency,
    Machine,
    Results,
    StrategyResult,
    Vram,
    write_results,
)

H100 = Machine(device="cuda:0", name="H100", driver="580.1", torch="2.11.0", backend="diffsynth 2.1.12")
STEADY = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)


def results(day: int, samples: Mapping[str, Sequence[float]], **changes: Any) -> Results:
    strategies = {
        name: StrategyResult(
            samples_s=tuple(times),
            latency=Latency(times[0], (min(times), max(times)), len(times)) if times else None,
            vram=Vram(runtime_peak=2**30),
        )
        for name, times in samples.items()
    }
    found = Results(
        plugin_version="0.1.0",
        created=f"2026-11-{day:02}T18:00:00+00:00",
        machine=H100,
        model="qwen",
        request={"prompt": "a ghost", "height": 1024, "edit_image": None},
        strategies=strategies,
    )
    return replace(found, **changes)


def times(factor: float) -> tuple[float, ...]:
    return tuple(factor * each for each in STEADY)


def write(folder: Path, *found: Results) -> list[Path]:
    paths = [folder / f"run{number}.json" for number, _ in enumerate(found, 1)]
    for path, each in zip(paths, found, strict=True):
        write_results(path, each)
    return paths


def groups(folder: Path, *found: Results) -> list[Group]:
    return history(read_runs(write(folder, *found)))


def test_the_table_in_the_order_of_making(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        results(3, {"fused": times(0.9), "new": STEADY}),
        results(1, {"fused": STEADY, "low_vram": times(50)}),
        results(2, {"fused": times(1.2), "low_vram": times(51)}),
    )
    assert list(history_lines(found)) == [
        "qwen on H100, driver 580.1, torch 2.11.0, diffsynth 2.1.12; prompt a ghost, height 1024",
        "strategy  run               s/generation         interval  VRAM runtime  change     interval  verdict",
        "fused     2026-11-01 18:00         1.000   [0.9800–1.020]          1 GB       –            –  –",
        "          2026-11-02 18:00         1.200    [1.176–1.224]          1 GB  1.200×  1.176–1.224  FAIL",
        "          2026-11-03 18:00        0.9000  [0.8820–0.9180]          1 GB  0.750×  0.735–0.765  WIN",
        "low_vram  2026-11-01 18:00         50.00    [49.00–51.00]          1 GB       –            –  –",
        "          2026-11-02 18:00         51.00    [49.98–52.02]          1 GB  1.020×  1.000–1.041  PASS",
        "new       2026-11-03 18:00         1.000   [0.9800–1.020]          1 GB       –            –  –",
    ]


def test_machines_models_and_requests_are_apart(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        results(1, {"fused": STEADY}),
        results(2, {"fused": STEADY}, machine=replace(H100, name="A10")),
        results(3, {"fused": STEADY}, model="flux"),
        results(4, {"fused": STEADY}, request={"prompt": "a cat"}),
        results(5, {"fused": STEADY}),
    )
    assert [[run.name for run in group.runs] for group in found] == [
        ["run1.json", "run5.json"],
        ["run2.json"],
        ["run3.json"],
        ["run4.json"],
    ]


def test_other_software_is_judged_and_told(tmp_path: Path) -> None:
    (found,) = groups(
        tmp_path,
        results(1, {"fused": STEADY, "low_vram": STEADY}),
        results(2, {"fused": STEADY, "low_vram": STEADY}, machine=replace(H100, torch="2.12.0", driver="590.2")),
    )
    assert found.notes == ("run2.json: changed since run1.json: driver 580 to 590, torch 2.11.0 to 2.12.0",)
    assert [entry.change and entry.change.status for entry in found.strategies["fused"]] == [None, "PASS"]


def test_another_scheme_is_not_compared(tmp_path: Path) -> None:
    old, new = (results(day, {"fused": STEADY}) for day in (1, 2))
    changed = replace(
        new, strategies={"fused": replace(new.strategies["fused"], scheme="fp8_storage", steps=("fuse",))}
    )
    old = replace(
        old, strategies={"fused": replace(old.strategies["fused"], scheme="fp8_compute", steps=("fuse",))}
    )
    (found,) = groups(tmp_path, old, changed)
    assert [entry.change for entry in found.strategies["fused"]] == [None, None]
    assert found.notes == (
        "run2.json: not comparable with run1.json: scheme of fused (fp8_compute against fp8_storage)",
    )


def test_a_run_without_samples_is_passed_over(tmp_path: Path) -> None:
    broken = results(2, {"fused": ()})
    broken = replace(broken, strategies={"fused": replace(broken.strategies["fused"], error="out of memory")})
    (found,) = groups(tmp_path, results(1, {"fused": STEADY}), broken, results(3, {"fused": times(1.2)}))
    first, second, third = found.strategies["fused"]
    assert (first.change, second.change, second.error) == (None, None, "out of memory")
    assert third.change is not None
    assert (third.change.since, third.change.status) == ("run1.json", "FAIL")
    assert any(" error " in line for line in history_lines([found]))


def test_what_is_given_twice_counts_once(tmp_path: Path) -> None:
    (path,) = write(tmp_path, results(1, {"fused": STEADY}))
    assert len(read_runs([path, path])) == 1


def test_times_with_and_without_a_zone(tmp_path: Path) -> None:
    late = results(1, {"fused": STEADY}, created="2026-11-01T12:00:00")
    early = results(1, {"fused": STEADY}, created="2026-11-01T13:00:00+02:00")
    assert [run.name for run in read_runs(write(tmp_path, late, early))] == ["run2.json", "run1.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"created": "today"},
            "results.created is 'today', a time such as 2026-11-24T08:45:53+00:00 is expected; measure again to write "
            "it anew",
        ),
        (
            {"strategies": {"fused": StrategyResult(samples_s=(1.0, 0.0))}},
            "results.strategies['fused'].samples_s[1] is 0.0, a positive number is expected; measure again to write it "
            "anew",
        ),
    ],
)
def test_files_that_have_no_place_in_a_history(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (path,) = write(tmp_path, results(1, {"fused": STEADY}, **changes))
    with pytest.raises(LoraperfError) as caught:
        read_runs([path])
    assert str(caught.value) == f"results {path}: {message}"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        str(path) for path in write(tmp_path, results(1, {"fused": STEADY}), results(2, {"fused": times(1.04)}))
    ]
    assert main(["history", *paths]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("1.040×  1.019–1.061  INCONCLUSIVE")
    assert main(["history", *paths, "--max-slowdown", "10%"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("PASS")


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        str(path) for path in write(tmp_path, results(1, {"fused": STEADY}), results(2, {"fused": times(1.2)}))
    ]
    assert main(["history", *paths, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["history"], [group["machine"] for group in data["groups"]]) == (1, ["H100"])
    _, newest = data["groups"][0]["strategies"]["fused"]
    assert (newest["run"], newest["change"]["status"], newest["change"]["ratio"]) == (
        "run2.json",
        "FAIL",
        pytest.approx(1.2),
    )
    assert newest["vram_runtime_peak"] == 2**30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere.json"],
            "loraperf: results nowhere.json: cannot be read: No such file or directory; check the path",
        ),
        (["a", "--max-slowdown", "5"], "loraperf: --max-slowdown: percentage '5': write at least 0%"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["history", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_time_of_a_series_must_be_positive_too(tmp_path: Path) -> None:
    taken = ComparisonRecord(("a", "b"), interleaved=True, samples_s={"a": (1.0, None), "b": (1.0, -1.0)})
    (path,) = write(tmp_path, results(1, {"fused": STEADY}, comparisons=(taken,)))
    with pytest.raises(
        LoraperfError, match=r"results\.comparisons\[0\]\.samples_s\['b'\]\[1\] is -1\.0, a positive"
    ):
        read_runs([path])


def test_callables_are_said_to_be_left_out_and_nothing_is_no_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ComparisonRecord(
        arms=("draw",), interleaved=True, samples_s={"draw": STEADY}, tests={"draw": "t.py::test"}
    )
    note = "not compared: what tests gave to gpu_workload (t.py::test); hold it with --loraperf-baseline"
    path, bare = write(
        tmp_path, results(1, {"fused": STEADY}, comparisons=(record,)), results(2, {}, comparisons=(record,))
    )
    assert main(["history", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == note
    assert main(["history", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]
    assert main(["history", str(bare)]) == 2
    assert capsys.readouterr().err == f"loraperf: no strategy in {bare}; measure one; {note}\n"
