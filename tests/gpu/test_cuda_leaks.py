"""What tests leave behind on a real card: libraries' workspaces are no leak, tensors are."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_a_tensor_is_left_behind_and_a_workspace_is_not(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_suite="""
        import torch

        KEPT = []

        def test_multiplies():
            a = torch.randn(256, 256, device="cuda", dtype=torch.bfloat16)
            assert (a @ a).isfinite().all()

        def test_keeps():
            KEPT.append(torch.ones(2**20, device="cuda"))
        """
    )
    result = pytester.runpytest_subprocess("--gpu-leak-limit=1MB")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["loraperf vram-leak: the test left 4 MB of VRAM behind, held by test_suite.KEPT*"]
    )
