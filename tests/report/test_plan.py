"""The plan for a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, GIB

from pytest_loraperf.report.plan import plan_lines
from pytest_loraperf.report.results import Results, VerdictRecord
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
    message = judge_card(20 * GIB, "runtime", 14 * GIB, "VRAM", {}, fitting).message
    assert message.endswith("; known to fit, the fastest first: fused (12 GB, 900.0 ms), low_vram (7 GB)")
