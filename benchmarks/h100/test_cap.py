"""One generation of each strategy on a card that is played: those that need more fail, the others pass."""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline


@pytest.mark.lora_strategy(
    "standard_lora",
    "quantize_then_lora",
    "lora_then_quantize",
    "fused",
    "fused_then_quantize",
    "low_vram",
    "low_vram_optimized",
    "quantize_then_fuse",
)
@pytest.mark.lora_effect(min_gain=0)  # two of them are mistakes
def test_on_the_card(lora_pipeline: LoraPipeline) -> None:
    assert lora_pipeline(prompt="a ghost made of mist in an old library", steps=2).latents.isfinite().all()
