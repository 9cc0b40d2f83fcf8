from __future__ import annotations

import math

import pytest

from pytest_loraperf.verdict import Status
from pytest_loraperf.verdict.effect import judge_effect

GAINS = {f"blocks.{i}.to_q": 0.99 + i / 10_000 for i in range(28)}


def test_a_lora_that_is_there_passes() -> None:
    found = judge_effect("fused", GAINS, 0.9)
    assert (found.status, found.code) == (Status.PASS, "lora-effect")
    assert found.message == (
        "fused: 0.990 of the LoRA's intended effect is in blocks.0.to_q, the lowest of 28 layers (median 0.991), at "
        "least 0.9 is needed"
    )


def test_one_layer_without_it_fails_and_is_named() -> None:
    found = judge_effect("quantize_then_fuse", GAINS | {"blocks.3.to_q": 0.06, "blocks.9.to_q": 0.5}, 0.9)
    assert found.status is Status.FAIL
    assert found.message == (
        "quantize_then_fuse: 0.060 of the LoRA's intended effect is in blocks.3.to_q, the lowest of 28 layers (median "
        "0.991), but at least 0.9 is needed, and 2 have less; fuse before quantizing, and check that nothing replaced "
        "the layers that hold the LoRA"
    )
    assert found.detail[:2] == ("   0.060  blocks.3.to_q", "   0.500  blocks.9.to_q")
    assert len(found.detail) == 10


def test_what_is_no_number_fails() -> None:
    found = judge_effect("fused", GAINS | {"blocks.7.to_q": math.nan}, 0.0)
    assert found.status is Status.FAIL
    assert "nan of the LoRA's intended effect is in blocks.7.to_q" in found.message


def test_an_adapter_of_zeros_fails() -> None:
    found = judge_effect("fused", {}, 0.9)
    assert found.status is Status.FAIL
    assert (
        found.message == "fused: the adapter's matrices or its scale are zero, so it intends no effect; check both"
    )


@pytest.mark.parametrize(("lowest", "status"), [(0.9, Status.PASS), (0.899, Status.FAIL), (-0.1, Status.FAIL)])
def test_the_limit_is_at_least(lowest: float, status: Status) -> None:
    assert judge_effect("fused", GAINS | {"blocks.1.to_q": lowest}, 0.9).status is status


def test_a_lora_that_is_there_twice_fails() -> None:
    found = judge_effect("fused", {name: 2 * gain for name, gain in GAINS.items()}, 0.9)
    assert found.status is Status.FAIL
    assert "at most 1.5 is allowed: it is attached or fused more than once, or the pipeline was built with it" in (
        found.message
    )
    few = dict.fromkeys(list(GAINS)[: len(GAINS) // 3], 3.0)
    assert judge_effect("fused", GAINS | few, 0.9).passed  # rounding moves layers, not the median
