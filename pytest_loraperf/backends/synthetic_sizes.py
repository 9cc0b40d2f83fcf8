"""The sizes of synthetic Qwen-Image models, and the embeddings of prompts where there is no text encoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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


def seeded_prompt(pipe: Any, prompt: str, width: int) -> dict[str, Tensor]:
    """Return embeddings of shape (1, 200, width) of the prompt, in the pipeline's dtype, and a mask of ones."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator("cpu").manual_seed(seed)
    embeddings = torch.randn(1, PROMPT_TOKENS, width, generator=generator)
    return {
        "prompt_emb": embeddings.to(pipe.device, pipe.torch_dtype),
        "prompt_emb_mask": torch.ones(1, PROMPT_TOKENS, dtype=torch.long, device=pipe.device),
    }
