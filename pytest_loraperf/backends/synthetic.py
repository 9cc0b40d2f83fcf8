"""Synthetic Qwen-Image pipelines: DiffSynth's own classes with seeded random weights, nothing downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization
from diffsynth.models.general_modules import AdaLayerNorm, RMSNorm, TimestepEmbeddings
from diffsynth.models.qwen_image_dit import QwenEmbedRope, QwenImageDiT, QwenImageTransformerBlock
from diffsynth.models.qwen_image_vae import QwenImageVAE
from diffsynth.pipelines.qwen_image import QwenImagePipeline, QwenImageUnit_PromptEmbedder

from pytest_loraperf.backends.synthetic_text import tiny_processor, tiny_text_encoder
from pytest_loraperf.backends.tiny_text import tiny_tokenizer
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import SyntheticSize

LATENT_CHANNELS = 16
PATCHED = LATENT_CHANNELS * 4
PROMPT_TOKENS = 200
FULL_TEXT_WIDTH = 3584


@dataclass(frozen=True)
class DitSize:
    """The dimensions of a scaled ``QwenImageDiT``; widths are multiples of 16, as fp8 products need."""

    layers: int
    heads: int
    head_dim: int
    text_width: int
    rope_axes: tuple[int, int, int]

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return self.heads * self.head_dim


TINY = DitSize(layers=2, heads=2, head_dim=32, text_width=64, rope_axes=(8, 12, 12))


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


def has_image(pipe: Any) -> bool:
    """Whether the pipeline decodes images, and not latents only."""
    return not isinstance(decoder(pipe), LatentsOnly)


def decoder(pipe: Any) -> torch.nn.Module:
    """Return what decodes latents: ``pipe.vae``, or ``pipe.vae_decoder`` where there are two halves."""
    found: torch.nn.Module = pipe.vae if hasattr(pipe, "vae") else pipe.vae_decoder
    return found


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


class LatentsOnly(torch.nn.Module):
    """Stands where the VAE is, so that DiffSynth's ``__call__`` runs to its end; it decodes nothing."""

    def decode(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return a placeholder of shape (1, 3, 8, 8), which nobody looks at."""
        return torch.zeros(1, 3, 8, 8, dtype=latents.dtype)

    def forward(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return the same placeholder, for pipelines that call their decoder."""
        return self.decode(latents)

    def encode(self, *_: Any, **__: Any) -> torch.Tensor:
        """Refuse an image.

        Raises:
            ModelError: always; there is nothing that could encode it.
        """
        raise ModelError(
            "synthetic:full has no VAE and takes no image; leave the image out, "
            "or use synthetic:tiny or a pretrained model"
        )


class SeededPrompt(QwenImageUnit_PromptEmbedder):  # type: ignore[misc]  # DiffSynth is untyped
    """Stands where the text encoder's unit is: the same prompt gives the same random embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def process(self, pipe: Any, prompt: str, **_: Any) -> dict[str, torch.Tensor]:
        """Return embeddings of shape (1, 200, width) in the pipeline's dtype, and a mask of ones."""
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") >> 1
        generator = torch.Generator("cpu").manual_seed(seed)
        embeddings = torch.randn(1, PROMPT_TOKENS, self.width, generator=generator)
        return {
            "prompt_emb": embeddings.to(pipe.device, pipe.torch_dtype),
            "prompt_emb_mask": torch.ones(1, PROMPT_TOKENS, dtype=torch.long, device=pipe.device),
        }


def replace_prompt_embedder(pipe: QwenImagePipeline, width: int) -> None:
    """Let prompts become seeded embeddings, where there is no text encoder."""
    pipe.units = [
        SeededPrompt(width) if isinstance(unit, QwenImageUnit_PromptEmbedder) else unit for unit in pipe.units
    ]
