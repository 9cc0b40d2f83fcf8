"""What is recommended, from results alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, GIB

from pytest_loraperf.advise.choose import advice_lines, choices


def test_fastest_smallest_and_fastest_within_the_budget() -> None:
    assert choices(replace(EIGHT, gpu_budget=14 * GIB)) == {
        "fastest": "fused_then_quantize",
        "smallest": "low_vram_optimized",
        "fastest within 14 GB": "low_vram_optimized",
    }


def test_without_a_budget_there_are_two() -> None:
    assert list(choices(EIGHT)) == ["fastest", "smallest"]


def test_a_mistake_is_never_recommended() -> None:
    fastest = {
        name: replace(
            each,
            latency=replace(each.latency, median_s=1e-9),
            ratio=replace(each.ratio, value=1e-9),
        )
        if each.mistake and each.latency and each.ratio
        else each
        for name, each in EIGHT.strategies.items()
    }
    assert any(each.mistake for each in fastest.values())
    assert choices(replace(EIGHT, strategies=fastest)) == choices(EIGHT)


def test_lines_have_the_code_of_each_once() -> None:
    code = {"fused_then_quantize": "fast()\n", "low_vram_optimized": "small()\n"}
    assert list(advice_lines(replace(EIGHT, gpu_budget=14 * GIB), code)) == [
        "fastest               fused_then_quantize: 490.0 ms a generation, 20 GB",
        "smallest              low_vram_optimized: 1.500 s a generation, 1.9 GB",
        "fastest within 14 GB  low_vram_optimized: 1.500 s a generation, 1.9 GB",
        "",
        "# --- fused_then_quantize: fastest ---",
        "fast()",
        "",
        "# --- low_vram_optimized: smallest, fastest within 14 GB ---",
        "small()",
    ]


def test_what_the_intervals_cannot_tell_is_said() -> None:
    slower = EIGHT.strategies["fused"]
    assert slower.ratio is not None
    wide = replace(slower, ratio=replace(slower.ratio, ci=(0.3, 3.0)))
    results = replace(EIGHT, strategies={**EIGHT.strategies, "fused": wide})
    fastest, smallest = list(advice_lines(results, {}))[:2]
    assert fastest.endswith(" a generation, 20 GB; these may be as fast: fused")
    assert "as fast" not in smallest
    within = list(advice_lines(replace(results, gpu_budget=30 * GIB), {}))[2]
    assert "as fast" not in within  # fused does not fit


@pytest.mark.parametrize(
    ("results", "line"),
    [
        (replace(EIGHT, gpu_budget=GIB), "nothing fits a card of 1 GB"),
        (replace(EIGHT, strategies={}), "advice: none; nothing was measured that could be recommended"),
    ],
)
def test_what_cannot_be_recommended_is_said(results: object, line: str) -> None:
    assert line in list(advice_lines(results, {}))  # type: ignore[arg-type]  # parametrized
