"""The LoRA on our base, by the plugin's strategies."""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline


@pytest.mark.lora_strategy("fused", "fused_then_quantize")
@pytest.mark.output_equivalent(to="standard_lora")
def test_the_lora_is_in_the_picture(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline().latents.isfinite().all()


@pytest.mark.vram_budget("8GB")
@pytest.mark.vram_budget("8GB", phase="setup")
def test_a_small_card_is_enough(low_vram_optimized_pipeline: LoraPipeline) -> None:
    assert low_vram_optimized_pipeline().latents.isfinite().all()
