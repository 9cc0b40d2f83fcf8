"""A phase over its budget is taken apart on a real card."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_a_pipeline_over_the_card_shows_its_parts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(standard_lora_pipeline):
            standard_lora_pipeline(prompt="a ghost")
    """)
    options = (
        "--loraperf-device=cuda",
        "--loraperf-model=synthetic:tiny",
        "--gpu-budget=100MB",
        "-p",
        "no:randomly",
    )
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "standard_lora, " in text
    assert "CUDA context and libraries" in text
    assert "reserved, not in use (fragmentation)" in text
