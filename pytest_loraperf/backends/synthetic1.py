"""Synthetic Qwen-Image pipelines of DiffSynth 1.1's own classes, with seeded random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.models.flux_dit import AdaLayerNorm
from diffsynth.models.qwen_image_dit import QwenEmbedRope, QwenImageDiT, QwenImageTransformerBlock
from diffsynth.models.qwen_image_vae import QwenImageVAE
from diffsynth.models.sd3_dit import RMSNorm, TimestepEmbeddings
from diffsynth.models.utils import init_weights_on_device
from diffsynth.pipelines.qwen_image import QwenImagePipeline, QwenImageUnit_PromptEmbedder

from pytest_loraperf.backends.latents_only import LatentsOnly
from pytest_loraperf.backends.synthetic_sizes import (
    FULL_TEXT_WIDTH,
    LATENT_CHANNELS,
    PATCHED,
    TINY,
    DitSize,
    seeded_prompt,
)
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import SyntheticSize


def build_synthetic(
    size: SyntheticSize,
    *,
    seed: int,
    device: torch.device | str,
    weights_on: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
) -> QwenImagePipeline:
    """Build a pipeline that computes on ``device``, its weights kept on ``weights_on``.

    ``tiny`` has a VAE; ``full`` is the 60-layer, 20.43 B-parameter DiT alone, and no image is decoded. Neither has
    a text encoder: prompts become seeded embeddings of 200 tokens.

    Raises:
        ModelError: the full model was asked for on the CPU.
    """
    if size == "full" and torch.device(device).type == "cpu":
        raise ModelError("synthetic:full has 20.43 B parameters and needs a CUDA device; use synthetic:tiny")
    pipe = QwenImagePipeline(device=device, torch_dtype=dtype)
    with init_weights_on_device(torch.device("meta")):
        pipe.dit = QwenImageDiT() if size == "full" else scaled_dit(TINY)
        pipe.vae = Undecoded() if size == "full" else tiny_vae()
    # What is no parameter was made on the meta device too, where it has no values.
    pipe.dit.pos_embed = rope((16, 56, 56) if size == "full" else TINY.rope_axes)
    width = FULL_TEXT_WIDTH if size == "full" else TINY.text_width
    pipe.units = [
        SeededPrompt(width) if isinstance(unit, QwenImageUnit_PromptEmbedder) else unit for unit in pipe.units
    ]
    generator = torch.Generator(device).manual_seed(seed)
    for module in (pipe.dit, pipe.vae):
        fill(module, generator, weights_on=weights_on, dtype=dtype)
    return pipe.eval()


def scaled_dit(size: DitSize) -> QwenImageDiT:
    """Return a ``QwenImageDiT`` of another size: its ``__init__`` fixes the width, so the parts are built here."""
    dit = QwenImageDiT.__new__(QwenImageDiT)
    torch.nn.Module.__init__(dit)
    width = size.width
    dit.pos_embed = rope(size.rope_axes)
    dit.time_text_embed = TimestepEmbeddings(
        256, width, diffusers_compatible_format=True, scale=1000, align_dtype_to_timestep=True
    )
    dit.txt_norm = RMSNorm(size.text_width, eps=1e-6)
    dit.img_in = torch.nn.Linear(PATCHED, width)
    dit.txt_in = torch.nn.Linear(size.text_width, width)
    blocks = (QwenImageTransformerBlock(width, size.heads, size.head_dim) for _ in range(size.layers))
    dit.transformer_blocks = torch.nn.ModuleList(blocks)
    dit.norm_out = AdaLayerNorm(width, single=True)
    dit.proj_out = torch.nn.Linear(width, PATCHED)
    return dit


def rope(axes: tuple[int, int, int]) -> QwenEmbedRope:
    """Return the rotary embedding; it has no parameters, only tables."""
    return QwenEmbedRope(theta=10000, axes_dim=list(axes), scale_rope=True)


def tiny_vae() -> QwenImageVAE:
    """Return a narrow ``QwenImageVAE``: 16 latent channels and 8 pixels a latent, as the real one."""
    return QwenImageVAE(base_dim=8, z_dim=LATENT_CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


class Undecoded(LatentsOnly):
    """Stands where the VAE is. 1.1's VRAM management asks a model's first parameter for its dtype: here is one."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(1), requires_grad=False)


class SeededPrompt(QwenImageUnit_PromptEmbedder):  # type: ignore[misc]  # DiffSynth is untyped
    """Stands where the text encoder's unit is: the same prompt gives the same random embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def process(self, pipe: Any, prompt: str, **_: Any) -> dict[str, torch.Tensor]:
        """Return embeddings of shape (1, 200, width) in the pipeline's dtype, and a mask of ones."""
        return seeded_prompt(pipe, prompt, self.width)
