"""``--loraperf-baseline``: real runs that store what they measured, and later ones that are held to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pytest_loraperf.baseline.stored  # noqa: F401 - before the inner runs, which would each import one of their own
from pytest_loraperf import writable

BASE = "--loraperf-baseline=base.json"
UPDATE = "--loraperf-update-baseline"


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "300")


def workload(pytester: pytest.Pytester, seconds: float, budget: str = "5s") -> None:
    """A test whose workload takes about so many seconds of the clock."""
    pytester.makepyfile(f"""
        import itertools
        import pytest

        @pytest.mark.latency_budget("{budget}")
        def test_it(gpu_workload, clock):
            noise = itertools.cycle([0.99, 1.0, 1.01, 1.005, 0.995])
            gpu_workload(lambda: clock.spend({seconds} * next(noise)), name="step")
    """)


def paired(pytester: pytest.Pytester, seconds: float, machine: float = 1.0) -> None:
    """A test with a reference; the machine as a whole is slower by a factor."""
    pytester.makepyfile(f"""
        import itertools
        import pytest

        @pytest.mark.latency_budget(ratio=5, of="old")
        def test_it(gpu_workload, clock):
            noise = itertools.cycle([0.99, 1.0, 1.01, 1.005, 0.995])
            gpu_workload(lambda: clock.spend({seconds * machine} * next(noise)), name="new")
            gpu_workload(lambda: clock.spend({machine} * next(noise)), name="old")
    """)


def stored(pytester: pytest.Pytester) -> list[Any]:
    data = json.loads((pytester.path / "base.json").read_text())
    return [entry for entry in data["records"].values() if entry]


def test_what_is_stored_holds_the_next_run(clocked: pytest.Pytester) -> None:
    workload(clocked, 1.0)
    made = clocked.runpytest_inprocess(BASE, UPDATE)
    made.assert_outcomes(passed=1)
    made.stdout.fnmatch_lines(["baseline *base.json: accepted step; commit it", "--- before", "+++ after"])
    (record,) = stored(clocked)
    assert len(record["last"]["samples_s"]) == 15
    assert record["anchor"] == record["last"]

    held = clocked.runpytest_inprocess(BASE)
    held.assert_outcomes(passed=1)
    held.stdout.no_fnmatch_line("*baseline*accepted*")

    workload(clocked, 1.2)
    slower = clocked.runpytest_inprocess(BASE)
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(
        [
            "loraperf baseline: step takes 1.200× as long as in the last accepted run of *"
            "15 against 15 samples), over the allowed 1.05×; look for what changed, or accept it with: "
            "pytest --loraperf-baseline=base.json --loraperf-update-baseline"
        ]
    )
    assert stored(clocked) == [record]


def test_a_baseline_from_the_ini_holds_too(clocked: pytest.Pytester) -> None:
    workload(clocked, 1.0)
    clocked.runpytest_inprocess(BASE, UPDATE).assert_outcomes(passed=1)
    clocked.makeini("[pytest]\nloraperf_baseline = base.json\nloraperf_baseline_days = 30\nloraperf_strict = true")
    workload(clocked, 1.2)
    clocked.runpytest_inprocess().assert_outcomes(failed=1)
    workload(clocked, 1.0)
    clocked.runpytest_inprocess().assert_outcomes(passed=1)
    clocked.makeini("[pytest]\nloraperf_baseline = base.json\nloraperf_update_baseline = true")
    workload(clocked, 1.2)
    clocked.runpytest_inprocess().assert_outcomes(passed=1)
    (record,) = stored(clocked)
    assert record["last"]["samples_s"][0] > 1.1 > record["anchor"]["samples_s"][0]


def test_a_slower_machine_is_no_slower_strategy(clocked: pytest.Pytester) -> None:
    paired(clocked, 0.8)
    clocked.runpytest_inprocess(BASE, UPDATE).assert_outcomes(passed=1)
    (record,) = stored(clocked)
    assert record["last"]["reference"] == "old"
    paired(clocked, 0.8, machine=2.0)
    clocked.runpytest_inprocess(BASE).assert_outcomes(passed=1)
    paired(clocked, 0.9)
    result = clocked.runpytest_inprocess(BASE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*15 against 15 samples, as ratios to old), over the allowed 1.05×*"])


def test_an_improvement_is_told(clocked: pytest.Pytester) -> None:
    workload(clocked, 1.0)
    clocked.runpytest_inprocess(BASE, UPDATE)
    workload(clocked, 0.8)
    result = clocked.runpytest_inprocess(BASE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_it passed its baseline gate by far; it could be:",
            "  pytest --loraperf-baseline=base.json --loraperf-update-baseline",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "variable", "failed"),
    [
        ((), "", 0),
        (("--loraperf-strict",), "", 1),
        ((), "true", 1),
        ((), "false", 0),
        (("-o", "loraperf_strict=1"), "", 1),
    ],
)
def test_a_missing_record_is_told_and_fails_in_ci(
    clocked: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variable: str,
    failed: int,
) -> None:
    monkeypatch.setenv("CI", variable)
    workload(clocked, 1.0)
    result = clocked.runpytest_inprocess(BASE, *arguments)
    result.assert_outcomes(failed=failed, passed=1 - failed)
    result.stdout.fnmatch_lines(["*no baseline of step on * with these versions, this model and request; make*"])


def test_stale_by_days(clocked: pytest.Pytester) -> None:
    workload(clocked, 1.0)
    clocked.runpytest_inprocess(BASE, UPDATE)
    file = clocked.path / "base.json"
    (record,) = stored(clocked)
    file.write_text(file.read_text().replace(record["last"]["created"], "2020-01-01"))
    result = clocked.runpytest_inprocess(BASE, "--loraperf-strict", "--loraperf-baseline-days=365")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the baseline of step is * days old (2020-01-01), over the allowed 365; make it*"]
    )


def test_what_failed_is_not_accepted(clocked: pytest.Pytester) -> None:
    workload(clocked, 3.0, budget="2s")
    result = clocked.runpytest_inprocess(BASE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "baseline *base.json: nothing was accepted, since no test with a gate on time passed, *",
            "baseline *base.json: step is not accepted, since a gate of its tests failed",
        ]
    )
    assert not (clocked.path / "base.json").exists()


def test_a_workload_that_raises_is_not_accepted(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("5s")
        def test_it(gpu_workload, clock):
            calls = []

            def work():
                calls.append(clock.spend(1.0))
                if len(calls) > 9:
                    raise RuntimeError("in round 9")
            gpu_workload(work)
    """)
    result = clocked.runpytest_inprocess(BASE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: in round 9*"])
    assert not (clocked.path / "base.json").exists()


def test_a_test_with_no_gate_on_time_is_not_measured(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        def test_it(gpu_workload, clock):
            gpu_workload(clock.spend, 1.0)
    """)
    result = clocked.runpytest_inprocess(BASE, "--loraperf-strict")
    result.assert_outcomes(passed=1)


def test_a_strategy_is_stored_with_what_it_is(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("60s")
        def test_it(fused_pipeline):
            fused_pipeline(prompt="x")
    """)
    pytester.runpytest_inprocess(BASE, UPDATE, "--loraperf-device=cpu").assert_outcomes(passed=1)
    (record,) = stored(pytester)
    subject = record["subject"]
    assert (subject["name"], subject["test"], subject["model"]) == ("fused", "", "synthetic:tiny")
    assert subject["backend"].startswith("diffsynth ")
    assert subject["requests"][0]["prompt"] == "x"
    assert subject["steps"] == ["fuse"]
    assert subject["gpu"] not in {"", "cpu"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (UPDATE,),
            "*loraperf: --loraperf-update-baseline: no file to update; name it with --loraperf-baseline=FILE",
        ),
        (
            (BASE, "--loraperf-baseline-days=soon"),
            "*--loraperf-baseline-days: got 'soon'; a whole number of days, at*",
        ),
        (
            ("--loraperf-baseline=bad.json",),
            "*loraperf: baseline *bad.json: no JSON, truncated, or a merge that was*",
        ),
        (("--loraperf-baseline=.",), "*loraperf: baseline *: cannot be read: *; check the path"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error(
    clocked: pytest.Pytester, arguments: tuple[str, ...], message: str
) -> None:
    Path(clocked.path / "bad.json").write_text("{")
    workload(clocked, 1.0)
    result = clocked.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_file_that_cannot_be_written_loses_no_results(
    clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: str | bytes) -> None:
        if path.name == "base.json":
            raise OSError(28, "No space left on device")
        own(path, content)

    own = writable._replace
    monkeypatch.setattr(writable, "_replace", full)
    workload(clocked, 1.0)
    result = clocked.runpytest_inprocess(BASE, UPDATE, "--loraperf-json=out.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(
        ["error: baseline *base.json: cannot be written: No space left on device; nothing was*"]
    )
    assert json.loads((clocked.path / "out.json").read_text())["verdicts"]


def test_a_run_again_forgets_what_failed_before(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest
        runs = []

        @pytest.mark.latency_budget("2s")
        def test_it(gpu_workload, clock):
            runs.append(1)
            assert len(runs) == 1
            gpu_workload(clock.spend, 3.0, name="step")
    """)
    for workers in ("-n0", "-n1"):
        result = clocked.runpytest_subprocess(BASE, UPDATE, "--reruns=1", workers)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(
            ["baseline *base.json: nothing was accepted, since no test with a gate on time*"]
        )
    assert not (clocked.path / "base.json").exists()


def test_wherever_a_test_goes_the_file_stays(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import os
        import pytest

        @pytest.mark.latency_budget("5s")
        def test_it(gpu_workload, clock, tmp_path):
            os.chdir(tmp_path)
            gpu_workload(clock.spend, 1.0, name="step")
    """)
    clocked.runpytest_subprocess(BASE, UPDATE).assert_outcomes(passed=1)
    assert len(stored(clocked)) == 1


def test_few_samples_are_told_when_they_are_stored(clocked: pytest.Pytester) -> None:
    workload(clocked, 1.0)
    result = clocked.runpytest_inprocess(BASE, UPDATE, "--loraperf-max-seconds=1s")
    result.stdout.fnmatch_lines(
        [
            "warning: baseline *base.json: step has 3 samples, and no run can be told from fewer than 5; "
            "give it more time (--loraperf-max-seconds)"
        ]
    )
