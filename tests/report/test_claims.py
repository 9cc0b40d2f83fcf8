"""What users report with figures, held to a run's own samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, STRATEGIES, with_strategy

from pytest_loraperf.report.claims import CLAIMS
from pytest_loraperf.report.ranking import Found, ranking
from pytest_loraperf.report.results import ComparisonRecord, Results, SetupStep, Vram
from pytest_loraperf.verdict.types import Status

FASTEST = "fused_then_quantize is the fastest"
SMALLEST = "low_vram_optimized is the smallest"
SLOWEST = "low_vram is slower than all others"
LOADS = "lora_then_quantize loads the LoRA faster than quantize_then_lora"
FUSED = "fused is faster than standard_lora by 20%"


def found(results: Results, claim: str) -> Found | None:
    return next((each for each in ranking(results, CLAIMS) if str(each.claim) == claim), None)


def steady(**seconds: float) -> Results:
    """The eight strategies with 12 samples each that hardly vary, the named ones of other seconds."""
    strategies = {}
    for name, each in STRATEGIES.items():
        assert each.latency is not None
        middle = seconds.get(name, each.latency.median_s)
        strategies[name] = replace(each, samples_s=tuple(middle * (1 + 0.001 * (i % 3)) for i in range(12)))
    return replace(EIGHT, strategies=strategies)


def in_rounds(results: Results, *names: str, interleaved: bool = True) -> Results:
    samples = {name: results.strategies[name].samples_s for name in names}
    return replace(results, comparisons=(ComparisonRecord(names, interleaved=interleaved, samples_s=samples),))


@pytest.mark.parametrize(
    ("fused", "status"),
    [(0.75, Status.PASS), (0.80, Status.INCONCLUSIVE), (0.85, Status.FAIL), (1.2, Status.FAIL)],
)
def test_a_saving_is_held_to_its_figure_and_not_to_any_saving(fused: float, status: Status) -> None:
    judged = found(steady(fused=fused, standard_lora=1.0), FUSED)
    assert judged is not None
    assert (judged.status, judged.apart) == (status, True)
    assert judged.figures.startswith(f"{fused:.2f}×, ")


def test_rounds_in_common_are_told_from_others() -> None:
    results = steady(fused=0.7, standard_lora=1.0)
    assert [
        judged.apart
        for each in (
            in_rounds(results, "fused", "standard_lora"),
            in_rounds(results, "fused", "standard_lora", interleaved=False),
            in_rounds(results, "fused", "low_vram"),
        )
        if (judged := found(each, FUSED)) is not None
    ] == [False, True, True]


@pytest.mark.parametrize(
    ("first", "second", "status", "figures"),
    [
        (0.1, 0.4, Status.PASS, "0.25×, 0.08–0.75, timed once each"),
        (0.2, 0.4, Status.INCONCLUSIVE, "0.50×, 0.17–1.50, timed once each"),
        (0.4, 0.1, Status.FAIL, "4.00×, 1.33–12.00, timed once each"),
    ],
)
def test_loading_is_the_step_that_puts_the_lora_in(
    first: float, second: float, status: Status, figures: str
) -> None:
    right = replace(
        STRATEGIES["lora_then_quantize"],
        setup=(SetupStep("build", 9.0, 1), SetupStep("attach", first, 1), SetupStep("quantize", 9.0, 1)),
    )
    wrong = replace(
        STRATEGIES["quantize_then_lora"], setup=(SetupStep("quantize", 0.1, 1), SetupStep("attach", second, 1))
    )
    strategies = {**STRATEGIES, "lora_then_quantize": right, "quantize_then_lora": wrong}
    judged = found(replace(EIGHT, strategies=strategies), LOADS)
    assert judged is not None
    assert (judged.status, judged.figures, judged.apart) == (status, figures, True)


def test_loading_that_was_not_timed_says_nothing() -> None:
    assert found(with_strategy("lora_then_quantize", setup=()), LOADS) is None


def test_the_fastest_is_held_to_its_closest_rival() -> None:
    judged = found(steady(low_vram_optimized=1.4), FASTEST)
    assert judged is not None
    assert (judged.status, judged.detail) == (Status.PASS, "0.57–0.57 (fused_then_quantize to fused)")
    assert judged.ratio == pytest.approx(0.49 / 0.863, rel=1e-3)


def test_one_rival_that_is_faster_is_enough() -> None:
    judged = found(steady(fused=0.4, lora_then_quantize=0.45), FASTEST)
    assert judged is not None
    assert (judged.status, judged.detail) == (Status.FAIL, "1.22–1.23 (fused_then_quantize to fused)")


def test_a_rival_that_cannot_be_told_apart_leaves_it_open() -> None:
    judged = found(steady(fused=0.49), FASTEST)
    assert judged is not None
    assert (judged.status, judged.detail) == (Status.INCONCLUSIVE, "1.00–1.00 (fused_then_quantize to fused)")


def test_a_rival_that_was_not_measured_leaves_it_open() -> None:
    results = steady()
    few = {name: each for name, each in results.strategies.items() if name != "low_vram"}
    judged = found(replace(results, strategies=few), FASTEST)
    assert judged is not None
    assert judged.status is Status.INCONCLUSIVE
    assert judged.detail.endswith(
        "(fused_then_quantize to fused); nothing known of fused_then_quantize to low_vram"
    )
    assert found(replace(results, strategies={"low_vram": results.strategies["low_vram"]}), FASTEST) is None


def test_a_rival_that_is_faster_settles_it_whatever_else_lacks() -> None:
    results = steady(fused=0.4)
    few = {name: each for name, each in results.strategies.items() if name != "low_vram"}
    judged = found(replace(results, strategies=few), FASTEST)
    assert judged is not None
    assert (judged.status, judged.detail) == (Status.FAIL, "1.22–1.23 (fused_then_quantize to fused)")


def test_the_slowest_and_the_smallest() -> None:
    slowest, smallest = (found(steady(), claim) for claim in (SLOWEST, SMALLEST))
    assert slowest is not None
    assert smallest is not None
    assert (slowest.status, slowest.detail) == (Status.PASS, "0.04–0.04 (lora_then_quantize to low_vram)")
    assert (smallest.status, smallest.figures) == (
        Status.PASS,
        "0.26×, 1.8 GB of 6.9 GB (low_vram_optimized to low_vram)",
    )
    heavy = with_strategy("low_vram_optimized", vram=Vram(runtime_peak=8 * 2**30))
    found_heavy = found(heavy, SMALLEST)
    assert found_heavy is not None
    assert found_heavy.status is Status.FAIL
