"""The column "of the limit": in the table, in Markdown and in the page where it is known, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, MACHINE, STRATEGIES

from pytest_loraperf.limits import Limit, Rates
from pytest_loraperf.page.write import page
from pytest_loraperf.report.markdown import markdown_table
from pytest_loraperf.report.merging import merge
from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.report.table import strategy_table

RATES = Rates(operations={"bfloat16": 712e12}, bytes=2.5 * 2**40, bus_bytes=51 * 2**30)


def limited(name: str, seconds: float, by: str, not_counted: tuple[str, ...] = ()) -> StrategyResult:
    limit = Limit(
        operations={"bfloat16": 1}, bytes=2, bus_bytes=3, seconds=seconds, by=by, not_counted=not_counted
    )
    return replace(STRATEGIES[name], limit=limit)


@pytest.fixture
def results() -> Results:
    strategies = {
        "standard_lora": limited("standard_lora", 0.4, "operations", ("flash_attn::fwd",)),
        "fused": limited("fused", 0.4, "operations"),
        "low_vram": limited("low_vram", 1.5, "bus"),
        "low_vram_optimized": limited("low_vram_optimized", 1.485, "bus"),
        "quantize_then_fuse": STRATEGIES["quantize_then_fuse"],
    }
    return replace(EIGHT, machine=replace(MACHINE, rates=RATES), strategies=strategies)


NOTES = [
    "of the limit: the least time by this machine's rates, over the median "
    "(operations: standard_lora, fused; bus: low_vram, low_vram_optimized)",
    "rates: 712 TFLOP/s in bfloat16, 2.5 TB/s of device memory, 51 GB/s from pinned host memory",
    "of the limit: flash_attn::fwd not counted (standard_lora)",
]


def test_the_table_has_it(results: Results) -> None:
    lines = list(strategy_table(results, 230))
    place = lines[0].index("of the limit") + len("of the limit")
    assert [line[:place].split()[-1] for line in lines[1:6]] == ["35%", "46%", "3%", "99%", "–"]
    assert [line for line in lines if line in NOTES] == NOTES


def test_a_narrow_table_keeps_it_before_the_ratio(results: Results) -> None:
    lines = list(strategy_table(results, 65))
    assert lines[0].split("  ")[-1].strip() == "verdict"
    assert "of the limit" in lines[0]
    assert "ratio" not in lines[0].split()


def test_a_share_below_a_tenth_has_two_digits(results: Results) -> None:
    far = replace(results, strategies={"fused": limited("fused", 0.863 * 0.00123, "operations")})
    assert "0.12%" in list(strategy_table(far, 230))[1]


def test_markdown_has_it(results: Results) -> None:
    lines = markdown_table(results).splitlines()
    place = lines[0].split(" | ").index("of the limit")
    assert [line.split(" | ")[place] for line in lines[2:7]] == ["35%", "46%", "3%", "99%", "–"]
    assert lines[1].count("|") == lines[0].count("|") == lines[2].count("|")
    assert "- of the limit: flash\\_attn::fwd not counted (standard\\_lora)" in lines


def test_the_page_has_it(results: Results) -> None:
    text = page(results)
    assert ">of the limit<" in text
    assert '<td class="number">46%</td>' in text
    assert "rates: 712 TFLOP/s in bfloat16" in text


def test_results_without_it_have_no_such_column() -> None:
    for text in ("\n".join(strategy_table(EIGHT, 300)), markdown_table(EIGHT), page(EIGHT)):
        assert "of the limit" not in text


def test_it_survives_the_json(results: Results) -> None:
    assert Results.from_json(results.to_json()) == results


def test_of_several_workers_it_goes_with_the_samples() -> None:
    most, fewer = limited("fused", 0.4, "operations"), replace(limited("fused", 0.1, "bus"), samples_s=(9.0,))
    parts = [replace(EIGHT, strategies={"fused": each}) for each in (fewer, most)]
    assert merge(parts, ["fused"]).strategies["fused"].limit == most.limit
    rated = replace(EIGHT, machine=replace(MACHINE, rates=RATES))
    assert merge([EIGHT, rated], ["fused"]).machine.rates == RATES
    without = replace(most, limit=None)
    parts = [replace(EIGHT, strategies={"fused": each}) for each in (fewer, without)]
    assert merge(parts, ["fused"]).strategies["fused"].limit is None
