"""A tiny tokenizer, processor and text encoder, made on the spot: DiffSynth's prompt path runs as it is."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization
from diffsynth.models.qwen_image_text_encoder import QwenImageTextEncoder
from transformers import (
    Qwen2_5_VLModel,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from pytest_loraperf.backends.tiny_text import MERGE, PATCH, tiny_config

IMAGE_PIXELS = (PATCH * MERGE) ** 2 * 4
"""The edit image is scaled to about so many pixels for the text encoder: four image tokens."""


def tiny_processor(tokenizer: Any) -> Any:
    """Return a ``Qwen2VLProcessor`` that scales images down to a few tokens."""
    size = {"shortest_edge": IMAGE_PIXELS, "longest_edge": IMAGE_PIXELS}
    images = Qwen2VLImageProcessor(size=size, patch_size=PATCH, merge_size=MERGE)
    videos = Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE)
    return Qwen2VLProcessor(image_processor=images, tokenizer=tokenizer, video_processor=videos)


def tiny_text_encoder(tokenizer: Any, width: int) -> torch.nn.Module:
    """Return DiffSynth's text encoder over a two-layer Qwen2.5-VL, its parameters on the meta device.

    ``width`` is the size of the embeddings. DiffSynth's own ``__init__`` fixes the 7 B-parameter size, so it is
    skipped and its two attributes are set here.
    """
    config = tiny_config(tokenizer, width)
    encoder = QwenImageTextEncoder.__new__(QwenImageTextEncoder)
    torch.nn.Module.__init__(encoder)
    with skip_model_initialization():
        encoder.model = Qwen2_5_VLModel(config)
        encoder.lm_head = torch.nn.Linear(width, config.text_config.vocab_size, bias=False)
    encoder.config = config
    return encoder.eval()  # type: ignore[no-any-return]  # DiffSynth is untyped
