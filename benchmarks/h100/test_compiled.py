"""What is left of the time by fusing, quantizing and compiling: ``pytest benchmarks/h100/test_compiled.py``.

Fused, then quantized is always compiled here. Beside standard LoRA as it is called plainly it is to take at most
0.45 of the time, and beside standard LoRA that is compiled too at most 0.80.
"""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline

PROMPT = "a ghost made of mist in an old library"


@pytest.mark.faster_than("standard_lora", by="55%")
def test_beside_plain_lora(fused_then_quantize_pipeline: LoraPipeline) -> None:
    assert fused_then_quantize_pipeline(prompt=PROMPT).latents.isfinite().all()


@pytest.mark.faster_than("compiled_lora", by="20%")
def test_beside_compiled_lora(fused_then_quantize_pipeline: LoraPipeline) -> None:
    assert fused_then_quantize_pipeline(prompt=PROMPT).latents.isfinite().all()
