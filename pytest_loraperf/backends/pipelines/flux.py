"""FLUX.1: 11.9 B parameters in 19 joint and 38 single blocks."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.models.flux_dit import (
    AdaLayerNormContinuous,
    FluxDiT,
    FluxJointTransformerBlock,
    FluxSingleTransformerBlock,
    RoPEEmbedding,
)
from diffsynth.models.general_modules import TimestepEmbeddings
from diffsynth.pipelines.flux_image import FluxImagePipeline, FluxImageUnit_PromptEmbedder

from pytest_loraperf.backends.pipelines.description import Description, Draw
from pytest_loraperf.backends.pipelines.flux_vae import tiny_decoder
from pytest_loraperf.models import SyntheticSize

PROMPT_TOKENS = 512
POOLED_WIDTH = 768
TEXT_WIDTH = 4096
PATCHED = 64
WIDTH, HEADS, BLOCKS, AXES = 64, 2, 2, [8, 12, 12]
"""The tiny size; its embeddings are as wide as the real ones."""


def dit(size: SyntheticSize) -> torch.nn.Module:
    """Return the transformer; its ``__init__`` fixes the width, so the tiny one is put together here."""
    if size == "full":
        return FluxDiT()  # type: ignore[no-any-return]  # DiffSynth is untyped
    model: Any = FluxDiT.__new__(FluxDiT)
    torch.nn.Module.__init__(model)
    linear = torch.nn.Linear
    model.pos_embedder = RoPEEmbedding(WIDTH, 10000, AXES)
    model.time_embedder = TimestepEmbeddings(256, WIDTH)
    model.guidance_embedder = TimestepEmbeddings(256, WIDTH)
    model.pooled_text_embedder = torch.nn.Sequential(
        linear(POOLED_WIDTH, WIDTH), torch.nn.SiLU(), linear(WIDTH, WIDTH)
    )
    model.context_embedder = linear(TEXT_WIDTH, WIDTH)
    model.x_embedder = linear(PATCHED, WIDTH)
    model.blocks = torch.nn.ModuleList(FluxJointTransformerBlock(WIDTH, HEADS) for _ in range(BLOCKS))
    model.single_blocks = torch.nn.ModuleList(FluxSingleTransformerBlock(WIDTH, HEADS) for _ in range(BLOCKS))
    model.final_norm_out = AdaLayerNormContinuous(WIDTH)
    model.final_proj_out = linear(WIDTH, PATCHED)
    model.input_dim = PATCHED
    return model  # type: ignore[no-any-return]  # the same


def prompt(_size: SyntheticSize, draw: Draw) -> dict[str, Any]:
    """Return embeddings as T5 and CLIP give them, and the positions of text, which are zeros."""
    return {
        "prompt_emb": draw(1, PROMPT_TOKENS, TEXT_WIDTH),
        "pooled_prompt_emb": draw(1, POOLED_WIDTH),
        "text_ids": torch.zeros_like(draw(1, PROMPT_TOKENS, 3)),
    }


DESCRIPTION = Description(
    pipeline=FluxImagePipeline,
    dit=dit,
    billions=11.9,
    prompt_unit=FluxImageUnit_PromptEmbedder,
    prompt=prompt,
    tiny_decoder=tiny_decoder,
    decoder="vae_decoder",
)
