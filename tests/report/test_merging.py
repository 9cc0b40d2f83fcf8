"""The results of several workers as one run's."""

from __future__ import annotations

from dataclasses import replace

from sample_results import EIGHT, MACHINE, STRATEGIES

from pytest_loraperf.report.merging import merge
from pytest_loraperf.report.results import Results, StrategyResult, Vram

ORDER = ["standard_lora", "fused"]


def part(name: str, found: StrategyResult, **changes: object) -> Results:
    return replace(EIGHT, strategies={name: found}, **changes)  # type: ignore[arg-type]  # names of fields


def test_strategies_come_in_their_order_and_verdicts_are_all_kept() -> None:
    merged = merge([part("fused", STRATEGIES["fused"]), part("standard_lora", STRATEGIES["standard_lora"])], ORDER)
    assert list(merged.strategies) == ORDER
    assert len(merged.verdicts) == 2 * len(EIGHT.verdicts)
    assert merged.notes == EIGHT.notes


def test_the_most_samples_count_and_the_most_memory() -> None:
    few = replace(STRATEGIES["fused"], samples_s=(9.0,), vram=Vram(1, 2, 10**12), output=None)
    merged = merge([part("fused", few), part("fused", STRATEGIES["fused"])], ORDER).strategies["fused"]
    assert merged.samples_s == STRATEGIES["fused"].samples_s
    assert merged.output == STRATEGIES["fused"].output
    assert merged.vram.runtime_peak == 10**12


def test_what_one_could_not_build_and_another_measured_is_no_error() -> None:
    failed = StrategyResult(error="out of memory")
    merged = merge([part("fused", failed), part("fused", STRATEGIES["fused"])], ORDER)
    assert merged.strategies["fused"].error is None
    assert merge([part("fused", failed)], ORDER).strategies["fused"].error == "out of memory"


def test_models_are_not_thrown_together() -> None:
    tiny = replace(STRATEGIES["fused"], model="synthetic:tiny", samples_s=(0.1,) * 20)
    full = replace(STRATEGIES["fused"], model="synthetic:full")
    merged = merge(
        [part("fused", full, model="synthetic:full"), part("fused", tiny, model="synthetic:tiny")], ORDER
    )
    assert merged.strategies["fused"].samples_s == full.samples_s
    assert merged.strategies["fused (synthetic:tiny)"].samples_s == tiny.samples_s


def test_unlike_devices_are_told() -> None:
    other = replace(EIGHT, machine=replace(MACHINE, name="L40S"))
    assert merge([EIGHT, other], ORDER).notes[-1] == (
        "warning: the workers measured on unlike devices: H100 (torch 2.11.0), L40S (torch 2.11.0); "
        "compare within one alone"
    )
