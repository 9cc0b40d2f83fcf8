"""The plan for a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, GIB

from pytest_loraperf.report.plan import plan_lines
from pytest_loraperf.report.results import Latency, Ratio, Results, VerdictRecord
from pytest_loraperf.strategies import REFERENCE
from pytest_loraperf.verdict.gates import judge_card


def within(gib: float | None, results: Results = EIGHT) -> list[str]:
    return list(plan_lines(replace(results, gpu_budget=None if gib is None else int(gib * GIB))))


def test_the_fastest_that_fits_is_named() -> None:
    assert within(80) == [
        "plan: the fastest of 6 that fit a card of 80 GB is fused_then_quantize: 490.0 ms a generation, 20 GB"
    ]


def test_the_smallest_is_named_where_none_fits() -> None:
    assert within(1) == [
        "plan: none of 6 fits a card of 1 GB; the smallest is low_vram_optimized: 1.500 s a generation, 1.9 GB"
    ]


@pytest.mark.parametrize("gib", [None, 80])
def test_no_plan_without_a_budget_or_anything_measured(gib: float | None) -> None:
    empty = replace(EIGHT, strategies={})
    assert within(gib, EIGHT if gib is None else empty) == []


def test_a_strategy_that_failed_is_no_plan() -> None:
    broken = replace(EIGHT.strategies["fused_then_quantize"], error="it failed")
    results = replace(EIGHT, strategies={**EIGHT.strategies, "fused_then_quantize": broken})
    assert "fused_then_quantize" not in within(80, results)[0]


@pytest.mark.parametrize(
    ("code", "status", "left_out"),
    [
        ("lora-effect", "FAIL", True),
        ("equivalence", "FAIL", True),
        ("latency", "FAIL", False),
        ("equivalence", "PASS", False),
    ],
)
def test_a_strategy_that_gives_something_else_is_no_plan(code: str, status: str, left_out: bool) -> None:
    verdict = VerdictRecord(
        nodeid="t", strategy="fused_then_quantize", code=code, status=status, message="it was measured"
    )
    (found,) = within(80, replace(EIGHT, verdicts=(verdict,)))
    assert ("is fused_then_quantize:" not in found) is left_out


def test_a_test_over_the_card_is_told_what_fits() -> None:
    fitting: dict[str, tuple[int, float | None]] = {"fused": (12 * GIB, 0.9), "low_vram": (7 * GIB, None)}
    message = judge_card("the test", 20 * GIB, "runtime", 14 * GIB, "VRAM", {}, fitting).message
    assert message.endswith("; known to fit, the fastest first: fused (12 GB, 900.0 ms), low_vram (7 GB)")


@pytest.mark.parametrize(
    ("fitting", "untried", "said"),
    [
        ({}, "low_vram_optimized", "no right strategy measured so far fits; try low_vram_optimized"),
        ({}, None, "no right strategy measured so far fits; hold less at a time, or raise --gpu-budget"),
        (None, "low_vram_optimized", "over --gpu-budget=14 GB; hold less at a time, or raise --gpu-budget"),
    ],
)
def test_where_none_is_known_to_fit(
    fitting: dict[str, tuple[int, float | None]] | None, untried: str | None, said: str
) -> None:
    message = judge_card("the test", 20 * GIB, "runtime", 14 * GIB, "VRAM", {}, fitting, untried).message
    assert message.endswith(said)


def paired(name: str, value: float, ci: tuple[float, float], seconds: float) -> Results:
    """EIGHT, with another ratio and median of one strategy, and a ratio of each that has none."""
    strategies = {
        other: each
        if other == REFERENCE or each.ratio
        else replace(each, ratio=Ratio(REFERENCE, 3.0, (2.9, 3.1), True))
        for other, each in EIGHT.strategies.items()
    }
    latency = Latency(median_s=seconds, ci_s=(seconds, seconds), rounds=21)
    changed = replace(strategies[name], ratio=Ratio(REFERENCE, value, ci, True), latency=latency)
    return replace(EIGHT, strategies={**strategies, name: changed})


def test_the_fastest_is_so_within_rounds_whatever_the_seconds_of_other_rounds() -> None:
    assert "is fused:" in within(80, paired("fused", 0.2, (0.1, 0.3), 9.0))[0]
    assert "is fused:" not in within(80, paired("fused", 5.0, (4.9, 5.1), 0.001))[0]


def test_seconds_rank_where_one_has_no_ratio() -> None:
    results = paired("fused", 5.0, (4.9, 5.1), 0.001)
    lonely = replace(results.strategies["low_vram"], ratio=None)
    results = replace(results, strategies={**results.strategies, "low_vram": lonely})
    assert "is fused:" in within(80, results)[0]
