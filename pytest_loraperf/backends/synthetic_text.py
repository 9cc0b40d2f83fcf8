"""A tiny tokenizer, processor and text encoder, made on the spot: DiffSynth's prompt path runs as it is."""

from __future__ import annotations

from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization
from diffsynth.models.qwen_image_text_encoder import QwenImageTextEncoder
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PATCH, MERGE = 14, 2
IMAGE_PIXELS = (PATCH * MERGE) ** 2 * 4
"""The edit image is scaled to about so many pixels for the text encoder: four image tokens."""


def tiny_tokenizer() -> Any:
    """Return a ``Qwen2Tokenizer`` of single bytes and Qwen's special tokens."""
    vocabulary = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(SPECIAL_TOKENS)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(SPECIAL_TOKENS[1:]))


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
    config = _config(tokenizer, width)
    encoder = QwenImageTextEncoder.__new__(QwenImageTextEncoder)
    torch.nn.Module.__init__(encoder)
    with skip_model_initialization():
        encoder.model = Qwen2_5_VLModel(config)
        encoder.lm_head = torch.nn.Linear(width, config.text_config.vocab_size, bias=False)
    encoder.config = config
    return encoder.eval()  # type: ignore[no-any-return]  # DiffSynth is untyped


def _config(tokenizer: Any, width: int) -> Any:
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
            ("image", "image_pad"),
            ("video", "video_pad"),
        )
    }
    heads = 2
    half = width // heads // 2
    text = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 64,
        "out_hidden_size": width,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "fullatt_block_indexes": [0],
        "window_size": PATCH * MERGE * 4,
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
