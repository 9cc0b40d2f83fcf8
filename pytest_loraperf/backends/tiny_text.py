"""A tiny Qwen tokenizer and the configuration of a tiny text encoder, made on the spot; any backend's."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen2Tokenizer
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


def tiny_tokenizer() -> Any:
    """Return a ``Qwen2Tokenizer`` of single bytes and Qwen's special tokens."""
    vocabulary = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(SPECIAL_TOKENS)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(SPECIAL_TOKENS[1:]))


def tiny_config(tokenizer: Any, width: int) -> Any:
    """Return the configuration of a two-layer Qwen2.5-VL whose embeddings are ``width`` wide."""
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
