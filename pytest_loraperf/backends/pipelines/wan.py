"""Wan 2.1 text to video: 14.29 B parameters in 40 blocks; its latents have frames."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffsynth.models.wan_video_dit import WanModel
from diffsynth.models.wan_video_vae import VideoVAE_, WanVideoVAE
from diffsynth.pipelines.wan_video import WanVideoPipeline, WanVideoUnit_PromptEmbedder

from pytest_loraperf.backends.latents_only import LatentsOnly
from pytest_loraperf.backends.pipelines.description import Description, Draw
from pytest_loraperf.models import SyntheticSize

LATENT_CHANNELS = 16
PROMPT_TOKENS = 512
TEXT_WIDTH = {"tiny": 64, "full": 4096}
SIZES = {
    "tiny": {"dim": 64, "ffn_dim": 256, "num_heads": 2, "num_layers": 2},
    "full": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
}


def dit(size: SyntheticSize) -> torch.nn.Module:
    """Return the transformer."""
    model: torch.nn.Module = WanModel(
        in_dim=LATENT_CHANNELS,
        out_dim=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH[size],
        freq_dim=256,
        eps=1e-6,
        patch_size=(1, 2, 2),
        has_image_input=False,
        **SIZES[size],
    )
    return model


def prompt(size: SyntheticSize, draw: Draw) -> dict[str, Any]:
    """Return embeddings as UMT5 gives them."""
    return {"context": draw(1, PROMPT_TOKENS, TEXT_WIDTH[size])}


def tiny_vae() -> torch.nn.Module:
    """Return a narrow VAE of videos: 16 latent channels, 8 pixels and 4 frames a latent, as the real one."""
    vae: Any = WanVideoVAE()
    vae.model = VideoVAE_(dim=8, z_dim=LATENT_CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return vae  # type: ignore[no-any-return]  # DiffSynth is untyped


class VideoLatentsOnly(LatentsOnly):
    """Has what the pipeline asks a video VAE for before it decodes."""

    upsampling_factor = 8
    model = SimpleNamespace(z_dim=LATENT_CHANNELS)

    def decode(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return a placeholder of one frame, shape (1, 3, 1, 8, 8)."""
        return torch.zeros(1, 3, 1, 8, 8, dtype=latents.dtype)


DESCRIPTION = Description(
    pipeline=WanVideoPipeline,
    dit=dit,
    billions=14.29,
    prompt_unit=WanVideoUnit_PromptEmbedder,
    prompt=prompt,
    tiny_decoder=tiny_vae,
    latents_only=VideoLatentsOnly,
)
