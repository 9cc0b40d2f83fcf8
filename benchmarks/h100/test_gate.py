"""The whole gate, as a team would run it before a merge: all eight strategies.

``pytest benchmarks/h100/test_gate.py --loraperf-compile=off`` is to take at most 150 s on an H100, with builds.
A comparison of two arms that do not fit on the card together is in ``test_gate_in_turns.py``.
"""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline

PROMPT = "a ghost made of mist in an old library"


@pytest.mark.lora_strategy(
    "standard_lora", "fused", "lora_then_quantize", "fused_then_quantize", "low_vram", "low_vram_optimized"
)
@pytest.mark.output_equivalent(to="standard_lora")
@pytest.mark.latency_budget("5s")
@pytest.mark.vram_budget("44GB")
def test_right_order(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.lora_strategy("quantize_then_lora", "quantize_then_fuse")
@pytest.mark.lora_effect(min_gain=0)
@pytest.mark.latency_budget("5s")
@pytest.mark.vram_budget("44GB")
def test_wrong_order(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.latency_budget(ratio=1.5, of="standard_lora")
def test_quantizing_after_fusing_costs_little(fused_then_quantize_pipeline: LoraPipeline) -> None:
    assert fused_then_quantize_pipeline(prompt=PROMPT).latents.isfinite().all()
