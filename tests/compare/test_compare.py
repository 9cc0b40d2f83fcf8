"""Two results files: every line that a user can read of their comparison, and the status behind it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_loraperf.compare.compare import Comparison, compare, comparison_lines, left_out, run_compare
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import ComparisonRecord, Machine, Results, StrategyResult, write_results
from pytest_loraperf.units import parse_percent
from pytest_loraperf.verdict import Status

H100 = Machine(device="cuda:0", name="H100", driver="580.1", torch="2.11.0", backend="diffsynth 2.1.12")
CPU = Machine(device="cpu", name="CPU", torch="2.11.0", backend="diffsynth 2.1.12", memory_kind="tensor bytes")
STEADY = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)
BAD_SEARCH = (
    "measure BASE again, as clocks and neighbours differ between runs too, then look for what changed, "
    "or raise --max-slowdown"
)
MORE = "measure both with more rounds on a quieter machine, or raise --max-slowdown"


def times(factor: float) -> tuple[float, ...]:
    return tuple(factor * each for each in STEADY)


def results(samples: Mapping[str, Sequence[float]], machine: Machine = H100) -> Results:
    strategies = {name: StrategyResult(samples_s=tuple(each)) for name, each in samples.items()}
    request = {"prompt": "a ghost", "height": 1024}
    return Results(
        plugin_version="0.1.0",
        created="2026-11-23T18:00:00+00:00",
        command="loraperf bench",
        machine=machine,
        model="qwen",
        request=request,
        strategies=strategies,
    )


def with_errors(found: Results, **errors: str) -> Results:
    changed = {name: replace(found.strategies[name], error=error) for name, error in errors.items()}
    return replace(found, strategies={**found.strategies, **changed})


def said(base: Sequence[float], new: Sequence[float], limit: float = 0.05) -> str:
    """What is said of one strategy."""
    (found,) = compare(results({"fused": base}), results({"fused": new}), limit).strategies
    return found.verdict.message


def lines(found: Comparison) -> list[str]:
    return list(comparison_lines(found))


def test_all_that_can_be_said_of_two_files() -> None:
    base = results({"fused": STEADY, "low_vram": times(50), "slow": STEADY, "old": STEADY, "broken": STEADY})
    new = results({"fused": times(0.5), "low_vram": times(51), "slow": times(1.2), "broken": [], "young": STEADY})
    found = compare(base, with_errors(new, broken="out of\nmemory"), 0.05)
    assert found.status is Status.FAIL
    assert lines(found) == [
        "strategy  base s   new s   ratio     interval  verdict",
        "fused      1.000  0.5000  0.500×  0.490–0.510  WIN",
        "low_vram   50.00   51.00  1.020×  1.000–1.041  PASS",
        "slow       1.000   1.200  1.200×  1.176–1.224  FAIL",
        "old        1.000       –       –            –  INCONCLUSIVE",
        "broken     1.000       –       –            –  FAIL",
        "young          –   1.000       –            –  SKIPPED",
        "FAIL: slow takes 1.200× as long as in BASE (1.176–1.224, 6 against 6 samples), over the allowed 1.05×; "
        + BAD_SEARCH,
        "INCONCLUSIVE: old is missing in NEW; measure it, or take it out of BASE",
        "FAIL: broken has an error in NEW: out of memory; mend it and measure again",
        "SKIPPED: young is only in NEW: there is nothing to compare it with",
        "WIN: fused takes 0.500× as long as in BASE (0.490–0.510, 6 against 6 samples), "
        "faster by more than the margin of 5%; keep NEW as the next BASE to hold it",
    ]


def test_what_holds_needs_no_line_beside_its_row() -> None:
    found = compare(results({"fused": STEADY}), results({"fused": STEADY}), 0.05)
    assert (found.status, len(lines(found))) == (Status.PASS, 2)
    (fused,) = found.strategies
    assert (fused.verdict.code, fused.verdict.detail) == (
        "slowdown",
        (
            "BASE: 1.000 s 1.010 s 990.0 ms 1.000 s 1.020 s 980.0 ms",
            "NEW: 1.000 s 1.010 s 990.0 ms 1.000 s 1.020 s 980.0 ms",
        ),
    )


@pytest.mark.parametrize(
    ("new", "limit", "message"),
    [
        (
            STEADY,
            0.05,
            "fused takes 1.000× as long as in BASE (0.980–1.020, 6 against 6 samples), within the allowed 1.05×",
        ),
        (
            STEADY,
            0.01,
            "fused takes 1.000× as long as in BASE (0.980–1.020, 6 against 6 samples): cannot tell whether it holds "
            f"the allowed 1.01×; it would have held 1.021× (--max-slowdown=2.1%); {MORE}",
        ),
        (
            times(1)[:3],
            0.05,
            "fused takes 1.000× as long as in BASE (0.324–3.092, 3 against 6 samples): cannot tell whether it holds "
            f"the allowed 1.05×; it would have held 3.092×; {MORE}",
        ),
        (
            STEADY[:2],
            0.05,
            "fused takes 1.005× as long as in BASE (0.000–inf, 2 against 6 samples): cannot tell whether it holds "
            f"the allowed 1.05×; so few samples can hold no limit at all; {MORE}",
        ),
    ],
)
def test_what_is_said_of_times(new: Sequence[float], limit: float, message: str) -> None:
    assert said(STEADY, new, limit) == message


@pytest.mark.parametrize(
    ("base", "new", "status", "message"),
    [
        (STEADY, (), Status.INCONCLUSIVE, "fused has no samples in NEW; measure its time in both"),
        ((), STEADY, Status.INCONCLUSIVE, "fused has no samples in BASE; measure its time in both"),
        ((), (), Status.SKIPPED, "fused has no samples in BASE nor in NEW: there is nothing to compare"),
    ],
)
def test_strategy_without_samples(
    base: Sequence[float], new: Sequence[float], status: Status, message: str
) -> None:
    found = compare(
        results({"fused": base, "standard_lora": STEADY}), results({"fused": new, "standard_lora": STEADY}), 0.05
    )
    assert (found.strategies[0].verdict.status, found.strategies[0].verdict.message) == (status, message)
    assert found.status is (Status.PASS if status is Status.SKIPPED else Status.INCONCLUSIVE)


def test_error_in_base_is_why_there_are_no_samples() -> None:
    base = with_errors(results({"fused": ()}), fused="no fp8 here")
    (found,) = compare(base, results({"fused": STEADY}), 0.05).strategies
    assert found.verdict.status is Status.INCONCLUSIVE
    assert found.verdict.message == ("fused has no samples in BASE (error: no fp8 here); measure its time in both")


def test_error_in_new_fails_though_it_has_samples() -> None:
    new = with_errors(results({"fused": STEADY}), fused="lost the device")
    assert compare(results({"fused": STEADY}), new, 0.05).status is Status.FAIL


def test_nothing_compared_is_no_pass() -> None:
    found = compare(results({"fused": ()}), results({"fused": ()}), 0.05)
    assert found.status is Status.INCONCLUSIVE
    assert lines(found)[-1] == (
        "nothing was compared: no strategy has samples in both; measure the time of one in both"
    )


@pytest.mark.parametrize(
    ("base", "new", "message"),
    [
        ({"fused": STEADY}, {"low": (), "a\nb": ()}, "BASE has fused, NEW has low, a b"),
        ({}, {}, "BASE has none, NEW has none"),
    ],
)
def test_no_strategy_in_common(
    base: dict[str, Sequence[float]], new: dict[str, Sequence[float]], message: str
) -> None:
    with pytest.raises(LoraperfError) as caught:
        compare(results(base), results(new), 0.05, across_machines=True)
    assert str(caught.value) == f"no strategy in common: {message}; measure the same strategies"


BASE = results({"fused": STEADY})


@pytest.mark.parametrize(
    ("new", "differences"),
    [
        (replace(BASE, machine=replace(H100, name="A100")), "device (H100 against A100)"),
        (replace(BASE, machine=replace(H100, driver="575.3")), "driver (580 against 575)"),
        (replace(BASE, machine=replace(H100, torch="2.12.0")), "torch (2.11.0 against 2.12.0)"),
        (
            replace(BASE, machine=replace(H100, backend="diffusers 0.36")),
            "backend (diffsynth 2.1.12 against diffusers 0.36)",
        ),
        (replace(BASE, machine=CPU), "device (H100 against CPU), driver (580 against none)"),
        (replace(BASE, model="flux"), "model (qwen against flux)"),
        (replace(BASE, request={"prompt": "a ghost", "height": 64}), "request height (1024 against 64)"),
        (
            replace(BASE, request={"prompt": "a\nbee " * 20, "height": 1024, "cfg": 4.0}),
            "request prompt (a ghost against a bee a bee a bee a bee a bee a bee a b…), request cfg (none against 4.0)",
        ),
    ],
)
def test_what_differs_is_refused_unless_told_to_and_then_said(new: Results, differences: str) -> None:
    with pytest.raises(LoraperfError) as caught:
        compare(BASE, new, 0.05)
    assert str(caught.value) == (
        f"BASE and NEW differ in {differences}: a ratio of their times would not be that of a change in code; "
        "measure both alike, or compare them all the same with --across-machines"
    )
    found = compare(BASE, new, 0.05, across_machines=True)
    assert found.status is Status.PASS
    assert lines(found)[-1] == (
        f"lost with --across-machines: BASE and NEW differ in {differences}; "
        "a ratio holds the effect of that too, and no verdict is on a change in code alone"
    )


@pytest.mark.parametrize(
    "machine",
    [replace(H100, device="cuda:1"), replace(H100, driver="580.95"), replace(H100, memory_kind="tensor bytes")],
)
def test_what_times_do_not_depend_on_may_differ(machine: Machine) -> None:
    found = compare(BASE, replace(BASE, machine=machine), 0.05, across_machines=True)
    assert found.notes == ()


def test_cpus_cannot_be_told_apart() -> None:
    found = compare(replace(BASE, machine=CPU), replace(BASE, machine=CPU), 0.05)
    assert found.notes == (
        "both ran on a CPU, and results do not say on which: see to it that it was the same machine",
    )


@pytest.mark.parametrize(
    ("factor", "status"), [(1.0, Status.PASS), (1.045, Status.INCONCLUSIVE), (1.1, Status.FAIL)]
)
def test_files_give_the_status_and_the_lines(tmp_path: Path, factor: float, status: Status) -> None:
    write_results(tmp_path / "base.json", BASE)
    write_results(tmp_path / "new.json", results({"fused": times(factor)}))
    shown: list[str] = []
    found = run_compare(tmp_path / "base.json", tmp_path / "new.json", 0.05, False, shown.append)
    assert found is status
    assert shown == lines(compare(BASE, results({"fused": times(factor)}), 0.05))


def text(samples: str) -> str:
    """The text of a results file with these samples."""
    return json.dumps(BASE.to_json()).replace(json.dumps(list(STEADY)), samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; check the path"),
        (
            '{"schema": 1',
            "no JSON, or truncated (Expecting ',' delimiter: line 1 column 13 (char 12)); measure again",
        ),
        ('{"schema": 2}', "results.schema is 2, this version reads 1; measure again with this version"),
        (text("[1.0, NaN]"), "no JSON, or truncated (NaN is no JSON number); measure again"),
        (
            text("[1.0, null]"),
            "results.strategies['fused'].samples_s[1] is null, a finite number is expected; "
            "measure again to write it anew",
        ),
        (
            text("[1.0, 0.0]"),
            "results.strategies['fused'].samples_s[1] is 0.0, a positive number is expected; "
            "measure again to write it anew",
        ),
        (
            text("[-1]"),
            "results.strategies['fused'].samples_s[0] is -1.0, a positive number is expected; "
            "measure again to write it anew",
        ),
    ],
)
@pytest.mark.parametrize("bad", ["base.json", "new.json"])
def test_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, bad: str, content: str | None, message: str
) -> None:
    for name in ("base.json", "new.json"):
        write_results(tmp_path / name, BASE)
    if content is None:
        (tmp_path / bad).unlink()
    else:
        (tmp_path / bad).write_text(content, encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        run_compare(tmp_path / "base.json", tmp_path / "new.json", 0.05, True, print)
    assert str(caught.value) == f"results {tmp_path / bad}: {message}"


def noisy_pair(seed: int, factor: float) -> Comparison:
    draw = random.Random(seed)
    base, new = ([each * draw.lognormvariate(0, 0.02) for _ in range(12)] for each in (1.0, factor))
    return compare(results({"fused": base}), results({"fused": new}), 0.02 if factor == 1 else 0.05)


def test_noise_alone_is_no_slowdown() -> None:
    found = [noisy_pair(seed, 1.0).status for seed in range(300)]
    assert found.count(Status.FAIL) <= 3


def test_a_tenth_slower_is_found() -> None:
    found = [noisy_pair(seed, 1.1).status for seed in range(300)]
    assert found.count(Status.FAIL) > 290


samples = st.lists(st.floats(0.5, 2), min_size=5, max_size=12)


@given(samples, samples)
def test_the_limit_that_is_named_would_have_passed(base: list[float], new: list[float]) -> None:
    _, named, rest = said(base, new, 0).partition("(--max-slowdown=")
    if named:
        assert ", within the allowed " in said(base, new, parse_percent(rest.partition(")")[0]))


@example([1.0, 1.0, 1.0, 1.0, 0.5000000000000001], [0.5] * 5, 0.0)
@given(samples, samples, st.floats(0, 0.2))
def test_a_win_is_a_failure_with_the_files_swapped(base: list[float], new: list[float], limit: float) -> None:
    there = compare(results({"fused": base}), results({"fused": new}), limit)
    back = compare(results({"fused": new}), results({"fused": base}), limit)
    assert there.strategies[0].won == (back.status is Status.FAIL)


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"steps": ("fuse", "compile")}, "steps of fused (('fuse',) against ('fuse', 'compile'))"),
        ({"scheme": "fp8_compute"}, "scheme of fused (fp8_storage against fp8_compute)"),
        ({"requests": ({"steps": 12},)}, "requests of fused (steps 4 against 12)"),
        ({"adapters": ()}, "adapters of fused (('a.safetensors:1',) against none)"),
        (
            {"adapters": ("b.safetensors:1",)},
            "adapters of fused (('a.safetensors:1',) against ('b.safetensors:1',))",
        ),
    ],
)
def test_a_strategy_that_is_another_is_refused(change: dict[str, Any], differences: str) -> None:
    fused = StrategyResult(
        steps=("fuse",),
        scheme="fp8_storage",
        requests=({"steps": 4},),
        adapters=("a.safetensors:1",),
        samples_s=STEADY,
    )
    base = replace(results({"fused": STEADY}), strategies={"fused": fused})
    new = replace(base, strategies={"fused": replace(fused, **change)})
    with pytest.raises(LoraperfError) as caught:
        compare(base, new, 0.05)
    assert str(caught.value).startswith(f"BASE and NEW differ in {differences}: ")


def test_what_a_file_does_not_tell_of_a_strategy_is_not_held_against_it() -> None:
    told = replace(
        results({"fused": STEADY}), strategies={"fused": StrategyResult(steps=("fuse",), samples_s=STEADY)}
    )
    assert compare(results({"fused": STEADY}), told, 0.05).status is Status.PASS


def timed(found: Results, *tests: str) -> Results:
    """Add callables that these tests gave."""
    records = tuple(
        ComparisonRecord(arms=("draw",), interleaved=True, samples_s={"draw": STEADY}, tests={"draw": test})
        for test in tests
    )
    return replace(found, comparisons=records)


def test_what_tests_timed_of_their_own_is_said_to_be_left_out() -> None:
    base, new = results({"fused": STEADY}), timed(results({"fused": STEADY}), "t.py::test_a", "t.py::test_b")
    note = "not compared: what tests gave to gpu_workload (t.py::test_a, t.py::test_b); hold it with --loraperf-baseline"
    assert list(comparison_lines(compare(base, new, 0.05)))[-1] == note
    (many,) = left_out(timed(base, *(f"t.py::test_{letter}" for letter in "abcde")))
    assert "(t.py::test_a, t.py::test_b, t.py::test_c and 2 more)" in many
    with pytest.raises(LoraperfError) as error:
        compare(timed(results({}), "t.py::test_a"), timed(results({}), "t.py::test_b"), 0.05)
    assert str(error.value) == (
        f"no strategy in common: BASE has none, NEW has none; measure the same strategies; {note}"
    )
