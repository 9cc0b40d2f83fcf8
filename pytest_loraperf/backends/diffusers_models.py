"""diffusers pipelines: from configurations with seeded random weights, or from a hub or folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pytest_loraperf.backends.tiny_text import tiny_config, tiny_tokenizer
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import Synthetic

QWEN_SHIFT = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 0.9,
    "max_image_seq_len": 8192,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
}
"""How the scheduler of Qwen/Qwen-Image is configured; FLUX.1-dev's is shifted too."""
FLUX_SHIFT = {"use_dynamic_shifting": True, "shift": 3.0}
QWEN_TOKENS, FLUX_TOKENS = 200, 512
TINY_TEXT = 64
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def build_synthetic(model: Synthetic, *, device: str, weights_on: str, dtype: torch.dtype) -> Any:
    """Build a pipeline whose weights are on ``weights_on``; ``full`` is the transformer alone, as it is published.

    Raises:
        ModelError: diffusers has no such pipeline here, or the full model was asked for on the CPU.
    """
    if model.pipeline not in ASSEMBLERS:
        allowed = ", ".join(ASSEMBLERS)
        raise ModelError(f"{model}: the backend diffusers builds {allowed}; use one of these, or diffsynth")
    if model.size == "full" and torch.device(device).type == "cpu":
        tiny = str(model).replace("full", "tiny")
        raise ModelError(f"{model} has billions of parameters and needs a CUDA device; use {tiny}")
    pipe = ASSEMBLERS[model.pipeline](model.size == "full")
    generator = torch.Generator(device).manual_seed(model.seed)
    for name in PARTS:
        module = getattr(pipe, name, None)
        if module is not None:
            fill(module, generator, weights_on=weights_on, dtype=dtype)
            module.eval()
    return pipe


def _qwen_image(full: bool) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(**QWEN_SHIFT)
    parts: dict[str, Any] = {"vae": None, "text_encoder": None, "tokenizer": None}
    small = {
        "num_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": TINY_TEXT,
        "axes_dims_rope": (8, 12, 12),
    }
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel(**({} if full else small))
        if not full:
            parts["vae"] = AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    _keep_rope(transformer, {} if full else small)
    if not full:
        parts["tokenizer"] = tiny_tokenizer()
        parts["text_encoder"] = _on_meta(
            Qwen2_5_VLForConditionalGeneration, tiny_config(parts["tokenizer"], TINY_TEXT)
        )
    return QwenImagePipeline(scheduler=scheduler, transformer=transformer, **parts)


def _keep_rope(transformer: torch.nn.Module, config: Mapping[str, Any]) -> None:
    """Give Qwen's tables of rotations their values: they are plain attributes, neither Parameters nor buffers."""
    axes = config.get("axes_dims_rope", (16, 56, 56))
    kind: Any = type(transformer.pos_embed)
    transformer.pos_embed = kind(theta=10000, axes_dim=list(axes), scale_rope=True)


def _flux(full: bool) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(**FLUX_SHIFT)
    names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    parts: dict[str, Any] = dict.fromkeys(names)
    small = {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": TINY_TEXT,
        "pooled_projection_dim": TINY_TEXT,
        "axes_dims_rope": (8, 12, 12),
    }
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True, **({} if full else small))
        if not full:
            parts["vae"] = AutoencoderKL(
                latent_channels=16,
                block_out_channels=[8] * 4,
                down_block_types=["DownEncoderBlock2D"] * 4,
                up_block_types=["UpDecoderBlock2D"] * 4,
                norm_num_groups=4,
                layers_per_block=1,
                use_quant_conv=False,
                use_post_quant_conv=False,
                shift_factor=0.1159,
                scaling_factor=0.3611,
            )
    if not full:
        tokenizer = _clip_tokenizer()
        parts |= {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
        ids = {"vocab_size": len(tokenizer), "pad_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
        clip = CLIPTextConfig(
            **ids,
            hidden_size=TINY_TEXT,
            intermediate_size=2 * TINY_TEXT,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            projection_dim=TINY_TEXT,
        )
        t5 = T5Config(**ids, d_model=TINY_TEXT, d_kv=32, d_ff=2 * TINY_TEXT, num_layers=2, num_heads=2)
        parts["text_encoder"], parts["text_encoder_2"] = (
            _on_meta(CLIPTextModel, clip),
            _on_meta(T5EncoderModel, t5),
        )
    return FluxPipeline(scheduler=scheduler, transformer=transformer, **parts)


def _on_meta(kind: Any, config: Any) -> Any:
    """Return a model without values but for its buffers, which are computed and not drawn."""
    with init_empty_weights(include_buffers=False):
        return kind(config)


def _clip_tokenizer() -> Any:
    """Return a ``CLIPTokenizer`` of single bytes, alone and at a word's end."""
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


ASSEMBLERS = {"qwen-image": _qwen_image, "flux": _flux}


def build_pretrained(source: str, *, weights_on: str, dtype: torch.dtype) -> Any:
    """Load a pipeline by diffusers' own ``from_pretrained``.

    Raises:
        ModelError: it cannot be loaded; the message has the cause.
    """
    try:
        return DiffusionPipeline.from_pretrained(source, torch_dtype=dtype).to(weights_on)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(f"pretrained:{source}: diffusers cannot load it: {first}") from error


def seeded_prompt(pipe: Any, prompt: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return embeddings for a pipeline without text encoder: the same prompt gives the same."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator("cpu").manual_seed(seed)
    config = pipe.transformer.config
    is_flux = "pooled_projection_dim" in config

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    tokens = FLUX_TOKENS if is_flux else QWEN_TOKENS
    found = {"prompt_embeds": draw(1, tokens, config.joint_attention_dim)}
    if is_flux:
        found["pooled_prompt_embeds"] = draw(1, config.pooled_projection_dim)
    else:
        found["prompt_embeds_mask"] = torch.ones(1, tokens, dtype=torch.long, device=device)
    return found
