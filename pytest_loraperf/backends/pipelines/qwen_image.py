"""Qwen-Image: 20.43 B parameters in 60 blocks; the tiny size has a VAE, a text encoder and a processor."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.models.general_modules import AdaLayerNorm, RMSNorm, TimestepEmbeddings
from diffsynth.models.qwen_image_dit import QwenEmbedRope, QwenImageDiT, QwenImageTransformerBlock
from diffsynth.models.qwen_image_vae import QwenImageVAE
from diffsynth.pipelines.qwen_image import QwenImagePipeline, QwenImageUnit_PromptEmbedder

from pytest_loraperf.backends.pipelines.description import Description, Draw
from pytest_loraperf.backends.synthetic_sizes import (
    FULL_TEXT_WIDTH,
    LATENT_CHANNELS,
    PATCHED,
    PROMPT_TOKENS,
    TINY,
    DitSize,
)
from pytest_loraperf.backends.synthetic_text import tiny_processor, tiny_text_encoder
from pytest_loraperf.backends.tiny_text import tiny_tokenizer
from pytest_loraperf.models import SyntheticSize


def dit(size: SyntheticSize) -> torch.nn.Module:
    """Return the transformer."""
    model: torch.nn.Module = QwenImageDiT() if size == "full" else scaled_dit(TINY)
    return model


def scaled_dit(size: DitSize) -> QwenImageDiT:
    """Return a transformer of another size: its ``__init__`` fixes the width, so the parts are built here."""
    model = QwenImageDiT.__new__(QwenImageDiT)
    torch.nn.Module.__init__(model)
    width, linear = size.width, torch.nn.Linear
    model.pos_embed = QwenEmbedRope(theta=10000, axes_dim=list(size.rope_axes), scale_rope=True)
    model.time_text_embed = TimestepEmbeddings(
        256, width, diffusers_compatible_format=True, scale=1000, align_dtype_to_timestep=False
    )
    model.txt_norm = RMSNorm(size.text_width, eps=1e-6)
    model.img_in, model.txt_in = linear(PATCHED, width), linear(size.text_width, width)
    blocks = (QwenImageTransformerBlock(width, size.heads, size.head_dim) for _ in range(size.layers))
    model.transformer_blocks = torch.nn.ModuleList(blocks)
    model.norm_out, model.proj_out = AdaLayerNorm(width, single=True), linear(width, PATCHED)
    return model


def tiny_vae() -> torch.nn.Module:
    """Return a narrow VAE: 16 latent channels and 8 pixels a latent, as the real one."""
    vae: torch.nn.Module = QwenImageVAE(base_dim=8, z_dim=LATENT_CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return vae


def tiny_text() -> dict[str, Any]:
    """Return what encodes prompts and images to edit."""
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(tokenizer, TINY.text_width)
    return {"tokenizer": tokenizer, "processor": tiny_processor(tokenizer), "text_encoder": encoder}


def prompt(size: SyntheticSize, draw: Draw) -> dict[str, Any]:
    """Return embeddings as Qwen2.5-VL gives them, and a mask of ones."""
    embeddings = draw(1, PROMPT_TOKENS, FULL_TEXT_WIDTH if size == "full" else TINY.text_width)
    mask = torch.ones(1, PROMPT_TOKENS, dtype=torch.long, device=embeddings.device)
    return {"prompt_emb": embeddings, "prompt_emb_mask": mask}


DESCRIPTION = Description(
    pipeline=QwenImagePipeline,
    dit=dit,
    billions=20.43,
    prompt_unit=QwenImageUnit_PromptEmbedder,
    prompt=prompt,
    tiny_decoder=tiny_vae,
    tiny_text=tiny_text,
)
