"""Beside the gate: two arms that do not fit on the card together, so that each is built anew in every round.

``pytest benchmarks/h100/test_gate_in_turns.py --loraperf-compile=off``: each of the two takes 40 GB.
"""

from __future__ import annotations

import pytest

from pytest_loraperf import LoraPipeline

PROMPT = "a ghost made of mist in an old library"


@pytest.mark.faster_than("standard_lora", by="10%")
def test_fusing_is_faster(fused_pipeline: LoraPipeline) -> None:
    assert fused_pipeline(prompt=PROMPT).latents.isfinite().all()
