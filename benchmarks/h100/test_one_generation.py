"""One generation of each strategy, with no gate of its own: what ``--gpu-budget`` says of it on this machine."""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline


@pytest.mark.lora_strategy("low_vram", "standard_lora", "fused")
def test_one_generation(lora_pipeline: LoraPipeline) -> None:
    # Of two steps: more take more time, not more memory.
    assert lora_pipeline(prompt="a ghost made of mist in an old library", steps=2).latents.isfinite().all()
