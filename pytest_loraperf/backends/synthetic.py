"""Synthetic Qwen-Image pipelines: DiffSynth's own classes with seeded random weights, nothing downloaded."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization
from diffsynth.models.general_modules import AdaLayerNorm, RMSNorm, TimestepEmbeddings
from diffsynth.models.qwen_image_dit import QwenEmbedRope, QwenImageDiT, QwenImageTransformerBlock
from diffsynth.models.qwen_image_vae import QwenImageVAE
from diffsynth.pipelines.qwen_image import QwenImagePipeline, QwenImageUnit_PromptEmbedder

from pytest_loraperf.backends.latents_only import LatentsOnly, decoder, has_image
from pytest_loraperf.backends.synthetic_sizes import (
    FULL_TEXT_WIDTH,
    LATENT_CHANNELS,
    PATCHED,
    TINY,
    DitSize,
    seeded_prompt,
)
from pytest_loraperf.backends.synthetic_text import tiny_processor, tiny_text_encoder
from pytest_loraperf.backends.tiny_text import tiny_tokenizer
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import SyntheticSize

__all__ = [
    "FULL_TEXT_WIDTH",
    "TINY",
    "DitSize",
    "LatentsOnly",
    "assemble",
    "build_synthetic",
    "decoder",
    "has_image",
    "replace_prompt_embedder",
    "scaled_dit",
    "tiny_vae",
]


def build_synthetic(
    size: SyntheticSize,
    *,
    seed: int,
    device: torch.device | str,
    weights_on: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
) -> QwenImagePipeline:
    """Build a pipeline that computes on ``device``, its weights kept on ``weights_on``.

    ``tiny`` has a VAE, a text encoder and a processor, all tiny. ``full`` is the 60-layer, 20.43 B-parameter DiT
    alone: prompts become seeded embeddings of shape (1, 200, 3584), and no image is decoded.

    Raises:
        ModelError: the full model was asked for on the CPU.
    """
    if size == "full" and torch.device(device).type == "cpu":
        raise ModelError("synthetic:full has 20.43 B parameters and needs a CUDA device; use synthetic:tiny")
    pipe = assemble(size, device=device, dtype=dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for module in (pipe.dit, pipe.vae, pipe.text_encoder):
        if module is not None:
            blocks = getattr(module, "transformer_blocks", ())
            fill(module, generator, weights_on=weights_on, dtype=dtype, blocks=tuple(blocks))
            # DiffSynth's loader casts what is no parameter too (the rotary frequencies of the text encoder).
            module.to(dtype)
    return pipe.eval()


def assemble(size: SyntheticSize, *, device: torch.device | str, dtype: torch.dtype) -> QwenImagePipeline:
    """Return the pipeline of this size, its parameters on the meta device and so without values."""
    pipe = QwenImagePipeline(device=device, torch_dtype=dtype)
    if size == "full":
        with skip_model_initialization():
            pipe.dit = QwenImageDiT()
        replace_prompt_embedder(pipe, FULL_TEXT_WIDTH)
        pipe.vae = LatentsOnly()
    else:
        pipe.dit = scaled_dit(TINY)
        pipe.vae = tiny_vae()
        pipe.tokenizer = tiny_tokenizer()
        pipe.processor = tiny_processor(pipe.tokenizer)
        pipe.text_encoder = tiny_text_encoder(pipe.tokenizer, TINY.text_width)
    return pipe


def scaled_dit(size: DitSize) -> QwenImageDiT:
    """Return a ``QwenImageDiT`` of another size, its parameters on the meta device.

    Its ``__init__`` fixes the width, so it is skipped, and the parts are built as it builds them.
    """
    dit = QwenImageDiT.__new__(QwenImageDiT)
    torch.nn.Module.__init__(dit)
    width = size.width
    with skip_model_initialization():
        dit.pos_embed = QwenEmbedRope(theta=10000, axes_dim=list(size.rope_axes), scale_rope=True)
        dit.time_text_embed = TimestepEmbeddings(
            256, width, diffusers_compatible_format=True, scale=1000, align_dtype_to_timestep=False
        )
        dit.txt_norm = RMSNorm(size.text_width, eps=1e-6)
        dit.img_in = torch.nn.Linear(PATCHED, width)
        dit.txt_in = torch.nn.Linear(size.text_width, width)
        blocks = (QwenImageTransformerBlock(width, size.heads, size.head_dim) for _ in range(size.layers))
        dit.transformer_blocks = torch.nn.ModuleList(blocks)
        dit.norm_out = AdaLayerNorm(width, single=True)
        dit.proj_out = torch.nn.Linear(width, PATCHED)
    return dit


def tiny_vae() -> QwenImageVAE:
    """Return a narrow ``QwenImageVAE``: 16 latent channels and 8 pixels a latent, as the real one."""
    with skip_model_initialization():
        return QwenImageVAE(base_dim=8, z_dim=LATENT_CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


class SeededPrompt(QwenImageUnit_PromptEmbedder):  # type: ignore[misc]  # DiffSynth is untyped
    """Stands where the text encoder's unit is: the same prompt gives the same random embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def process(self, pipe: Any, prompt: str, **_: Any) -> dict[str, torch.Tensor]:
        """Return embeddings of shape (1, 200, width) in the pipeline's dtype, and a mask of ones."""
        return seeded_prompt(pipe, prompt, self.width)


def replace_prompt_embedder(pipe: QwenImagePipeline, width: int) -> None:
    """Let prompts become seeded embeddings, where there is no text encoder."""
    pipe.units = [
        SeededPrompt(width) if isinstance(unit, QwenImageUnit_PromptEmbedder) else unit for unit in pipe.units
    ]
