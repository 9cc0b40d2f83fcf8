"""The decoder that FLUX and Z-Image share, tiny."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.models.flux_vae import FluxVAEDecoder, ResnetBlock, UpSampler, VAEAttentionBlock

LATENT_CHANNELS = 16
WIDTH = 32
"""Channels; the blocks normalize them in 32 groups."""
SCALINGS = 3
"""Each doubles height and width: 8 pixels a latent, as the real one."""


def tiny_decoder() -> torch.nn.Module:
    """Return a narrow decoder; its ``__init__`` fixes the width, so the tiny one is put together here."""
    model: Any = FluxVAEDecoder.__new__(FluxVAEDecoder)
    torch.nn.Module.__init__(model)
    model.scaling_factor, model.shift_factor = 0.3611, 0.1159
    model.conv_in = torch.nn.Conv2d(LATENT_CHANNELS, WIDTH, kernel_size=3, padding=1)
    scalings = (part for _ in range(SCALINGS) for part in (ResnetBlock(WIDTH, WIDTH, eps=1e-6), UpSampler(WIDTH)))
    model.blocks = torch.nn.ModuleList([VAEAttentionBlock(1, WIDTH, WIDTH, 1, eps=1e-6), *scalings])
    model.conv_norm_out = torch.nn.GroupNorm(num_channels=WIDTH, num_groups=32, eps=1e-6)
    model.conv_act = torch.nn.SiLU()
    model.conv_out = torch.nn.Conv2d(WIDTH, 3, kernel_size=3, padding=1)
    return model  # type: ignore[no-any-return]  # DiffSynth is untyped
