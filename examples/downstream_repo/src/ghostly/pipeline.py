"""The pipeline that paints: Qwen-Image with a LoRA in its weights, which are quantized then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffsynth.core.vram.layers import AutoWrappedLinear, enable_vram_management
from diffsynth.pipelines.qwen_image import ModelConfig, QwenImagePipeline
from safetensors.torch import load_file

QWEN_IMAGE = "Qwen/Qwen-Image"
PREFIX = "transformer."
"""What our trainer puts before the name of each layer; DiffSynth's names have none."""
Load = Callable[..., QwenImagePipeline]
"""``load(device="cuda")`` returns a pipeline whose weights lie on that device."""


def pretrained(device: str) -> QwenImagePipeline:
    """Load Qwen-Image from the hub, or from DiffSynth's folder of models."""
    parts = ("transformer/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model")
    files = [ModelConfig(model_id=QWEN_IMAGE, origin_file_pattern=f"{part}*.safetensors") for part in parts]
    return QwenImagePipeline.from_pretrained(
        torch_dtype=torch.bfloat16,
        device=device,
        model_configs=files,
        tokenizer_config=ModelConfig(model_id=QWEN_IMAGE, origin_file_pattern="tokenizer/"),
    )


def open_base(load: Load = pretrained, device: str = "cuda") -> QwenImagePipeline:
    """Return the pipeline without a LoRA, for inference."""
    pipe = load(device=device)
    pipe.requires_grad_(False)
    return pipe


def read_lora(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a LoRA file by DiffSynth's names."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}


def with_lora(pipe: QwenImagePipeline, path: Path) -> QwenImagePipeline:
    """Put a LoRA into the weights of a pipeline, then quantize them."""
    pipe.load_lora(pipe.dit, state_dict=read_lora(path))
    quantize(pipe)
    return pipe


def quantize(pipe: QwenImagePipeline) -> None:
    """Keep the weights of the DiT as fp8, which halves them; products stay in bf16."""
    fp8 = {
        "offload_dtype": torch.float8_e4m3fn,
        "offload_device": pipe.device,
        "onload_dtype": torch.float8_e4m3fn,
        "onload_device": pipe.device,
        "preparing_dtype": torch.float8_e4m3fn,
        "preparing_device": pipe.device,
        "computation_dtype": torch.bfloat16,
        "computation_device": pipe.device,
    }
    enable_vram_management(pipe.dit, {torch.nn.Linear: AutoWrappedLinear}, vram_config=fp8)
    for layer in pipe.dit.modules():
        if isinstance(layer, AutoWrappedLinear):
            layer.onload()
