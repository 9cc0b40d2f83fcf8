"""The ranking of the strategies, stated from a run's own samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sample_results import EIGHT, MACHINE

from pytest_loraperf.report.claims import CLAIMS, RANKING, REPORTED, Every, Faster
from pytest_loraperf.report.markdown import markdown_table
from pytest_loraperf.report.ranking import ranking, ranking_lines
from pytest_loraperf.report.results import ComparisonRecord, Results
from pytest_loraperf.report.terminal import summary
from pytest_loraperf.strategies import SHIPPED
from pytest_loraperf.verdict.types import Status

FUSED = "fused is faster than standard_lora"


def noisy(seconds: float, rounds: int, seed: int) -> tuple[float, ...]:
    return tuple(seconds * np.exp(np.random.default_rng(seed).normal(0, 0.01, rounds)))


def changed(results: Results, name: str, **changes: Any) -> Results:
    found = replace(results.strategies[name], **changes)
    return replace(results, strategies={**results.strategies, name: found})


def apart(fused: float, standard: float, rounds: int = 12) -> Results:
    """Return results in which the two shared no rounds."""
    found = changed(EIGHT, "fused", samples_s=noisy(fused, rounds, 1))
    return changed(found, "standard_lora", samples_s=noisy(standard, rounds, 2))


def status_of(results: Results, claim: str) -> Status | None:
    return next((found.status for found in ranking(results) if str(found.claim) == claim), None)


@pytest.mark.parametrize(
    ("fused", "standard", "status"),
    [(0.8, 1.0, Status.PASS), (1.0, 0.8, Status.FAIL), (1.0, 1.0, Status.INCONCLUSIVE)],
)
def test_strategies_that_were_taken_apart(fused: float, standard: float, status: Status) -> None:
    assert status_of(apart(fused, standard), FUSED) is status


def test_too_few_samples_tell_nothing() -> None:
    assert status_of(apart(0.8, 1.0, rounds=3), FUSED) is Status.INCONCLUSIVE
    assert status_of(apart(0.8, 1.0, rounds=2), FUSED) is None


def test_rounds_that_both_were_in_count_first() -> None:
    drift = np.linspace(1, 3, 12)  # the machine slows down to a third: apart, this hides everything
    taken = {"fused": tuple(0.97 * drift), "standard_lora": tuple(drift)}
    shared = ComparisonRecord(("fused", "standard_lora"), interleaved=True, samples_s=taken)
    results = changed(EIGHT, "fused", samples_s=taken["fused"])
    results = changed(results, "standard_lora", samples_s=taken["standard_lora"])
    assert status_of(results, FUSED) is Status.INCONCLUSIVE
    assert status_of(replace(results, comparisons=(shared,)), FUSED) is Status.PASS


def test_rounds_that_do_not_count_are_left_out() -> None:
    slow, fast = (1.0,) * 12, (0.9,) * 9 + (9.0,) * 3
    shared = ComparisonRecord(
        ("fused", "standard_lora"),
        interleaved=True,
        samples_s={"fused": (*fast, None), "standard_lora": (*slow, 1.0)},
        dropped=(9, 10, 11),
    )
    found = next(found for found in ranking(replace(EIGHT, comparisons=(shared,))) if str(found.claim) == FUSED)
    assert found.measured == "0.90×, 0.90–0.90"


def test_other_requests_are_no_comparison() -> None:
    results = changed(apart(0.8, 1.0), "fused", requests=({"steps": 2},))
    assert status_of(results, FUSED) is None


def test_sizes_are_compared_as_they_are() -> None:
    lines = list(ranking_lines(EIGHT))
    assert "low_vram_optimized is smaller than low_vram (1.8 GB of 6.9 GB)" in lines[0]
    assert "lora_then_quantize is smaller than standard_lora by 40% (21.2 GB of 40.3 GB)" in lines[0]
    assert "low_vram runs in 8 GB (6.9 GB)" in lines[0]
    heavy = changed(EIGHT, "low_vram", vram=EIGHT.strategies["fused"].vram)
    assert "low_vram runs in 8 GB (39.2 GB)" in "\n".join(ranking_lines(heavy)).split("does not hold here")[1]


def test_without_cuda_nothing_is_said_of_vram() -> None:
    found = ranking(replace(EIGHT, machine=replace(MACHINE, memory_kind="tensor bytes")))
    assert all(isinstance(each.claim, Faster) for each in found)


def test_a_strategy_that_failed_is_left_out() -> None:
    found = ranking(changed(EIGHT, "fused", error="out of memory"))
    assert not any("fused " in f"{each.claim} " and " fused" in f" {each.claim}" for each in found)


def test_every_claim_is_about_shipped_strategies() -> None:
    names = {strategy.name for strategy in SHIPPED}
    parts = [
        part for claim in (*RANKING, *CLAIMS) for part in (claim.parts if isinstance(claim, Every) else (claim,))
    ]
    assert {name for part in parts for name in (part.strategy, getattr(part, "than", part.strategy))} <= names
    assert REPORTED.keys() == names - {"quantize_then_fuse"}


def test_the_summary_and_the_page_say_it() -> None:
    results = apart(1.0, 0.8)
    expected = "ranking, does not hold here: fused is faster than standard_lora (1.25×, 1."
    assert any(line.startswith(expected) for line in summary(results, 200))
    assert f"- {expected}" in markdown_table(results).replace("\\_", "_")


def test_nothing_measured_says_nothing() -> None:
    assert list(ranking_lines(replace(EIGHT, strategies={}))) == []
