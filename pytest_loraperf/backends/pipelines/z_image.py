"""Z-Image: 6.15 B parameters in 34 blocks, 8 steps in its Turbo form."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.models.z_image_dit import ZImageDiT
from diffsynth.pipelines.z_image import ZImagePipeline, ZImageUnit_PromptEmbedder

from pytest_loraperf.backends.pipelines.description import Description, Draw
from pytest_loraperf.backends.pipelines.flux_vae import tiny_decoder
from pytest_loraperf.models import SyntheticSize

PROMPT_TOKENS = 200
TEXT_WIDTH = {"tiny": 64, "full": 2560}
# A width of 96 gives feed-forward layers 256 wide: a multiple of 16, as fp8 products need. Five blocks
# outweigh the embedder of time steps, which is of one size: streaming asks that most weights lie in like blocks.
TINY = {"dim": 96, "n_layers": 5, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "axes_dims": [8, 12, 12]}


def dit(size: SyntheticSize) -> torch.nn.Module:
    """Return the transformer."""
    model: torch.nn.Module = ZImageDiT(cap_feat_dim=TEXT_WIDTH[size], **(TINY if size == "tiny" else {}))
    return model


def prompt(size: SyntheticSize, draw: Draw) -> dict[str, Any]:
    """Return embeddings as the text encoder gives them: one tensor (tokens, width) a prompt."""
    return {"prompt_embeds": [draw(PROMPT_TOKENS, TEXT_WIDTH[size])]}


DESCRIPTION = Description(
    pipeline=ZImagePipeline,
    dit=dit,
    billions=6.15,
    prompt_unit=ZImageUnit_PromptEmbedder,
    prompt=prompt,
    tiny_decoder=tiny_decoder,
    decoder="vae_decoder",
)
