"""The seed's table as tests: every strategy generates, holds its budgets, and gives the same picture.

Run it with ``pytest examples --gpu-budget=80GB``. With a large CUDA device it measures the full-size Qwen-Image
DiT, else the tiny one on the CPU. The two known mistakes are in the table too, to show what they cost.
"""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline

PROMPT = "a ghost made of mist in an old library"


@pytest.mark.lora_strategy("standard_lora", "fused", "lora_then_quantize", "fused_then_quantize")
@pytest.mark.output_equivalent(to="standard_lora")
@pytest.mark.latency_budget(ratio=2.5, of="standard_lora")
def test_right_order_keeps_the_picture(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.lora_strategy("low_vram", "low_vram_optimized")
@pytest.mark.output_equivalent(to="standard_lora")
@pytest.mark.vram_budget("14GB")
@pytest.mark.vram_budget("14GB", phase="setup")
@pytest.mark.latency_budget("5min")
def test_low_vram_fits_a_small_card(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.lora_strategy("quantize_then_lora", "quantize_then_fuse")
@pytest.mark.lora_effect(min_gain=0)
@pytest.mark.latency_budget("60s")
def test_wrong_order_is_measured(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.needs_gpu(vram="44GB", capability="8.9")
@pytest.mark.faster_than("standard_lora", by="10%")
def test_fusing_is_faster(fused_pipeline: LoraPipeline) -> None:
    assert fused_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.needs_gpu(vram="44GB", capability="8.9")
@pytest.mark.faster_than("fused", by="10%")
def test_fused_then_quantized_is_fastest(fused_then_quantize_pipeline: LoraPipeline) -> None:
    assert fused_then_quantize_pipeline(prompt=PROMPT).latents.isfinite().all()
