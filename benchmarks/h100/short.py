"""A workload that the CPU bounds: the first eight of the full model's blocks, at 512×512 and two steps."""

from __future__ import annotations

from typing import Any

import torch

from pytest_loraperf.backends.synthetic import build_synthetic

BLOCKS = 8


def build(device: str) -> Any:
    """Build the full-size pipeline and keep its first blocks."""
    computes_on = "cuda" if torch.cuda.is_available() else device
    pipe = build_synthetic("full", seed=0, device=computes_on, weights_on=device)
    pipe.dit.transformer_blocks = pipe.dit.transformer_blocks[:BLOCKS]
    return pipe
