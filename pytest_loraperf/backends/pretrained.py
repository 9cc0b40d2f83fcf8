"""Pretrained Qwen-Image pipelines, by DiffSynth's ``ModelConfig``: from a hub or from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffsynth.pipelines.qwen_image import ModelConfig, QwenImagePipeline

from pytest_loraperf.errors import ModelError

TRANSFORMER = "transformer/diffusion_pytorch_model*.safetensors"
TEXT_ENCODER = "text_encoder/model*.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
BASE = "Qwen/Qwen-Image"
EDIT_BASE = "Qwen/Qwen-Image-Edit"
"""Where DiffSynth's examples take text encoder, tokenizer and VAE from, and the processor for edit models."""


def build_pretrained(
    source: str,
    *,
    device: torch.device | str,
    weights_on: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
) -> QwenImagePipeline:
    """Load a Qwen-Image or Qwen-Image-Edit pipeline that computes on ``device``.

    ``source`` is a hub id such as ``Qwen/Qwen-Image-Edit``, or a folder laid out as that repository is. A
    ``processor/`` folder, or ``Edit`` in the id, makes it an edit pipeline.

    Raises:
        ModelError: the folder lacks a part, or loading failed; the message says which, or why.
    """
    folder = Path(source).expanduser()
    parts = _local(folder) if folder.is_dir() else _remote(source)
    try:
        pipe = QwenImagePipeline.from_pretrained(torch_dtype=dtype, device=weights_on, **parts)
    except Exception as error:
        # Whatever the hub's client or the file reader raises, the user needs the one line that says why.
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(f"model {source!r} cannot be loaded: {type(error).__name__}: {reason}") from error
    pipe.device = device
    return pipe


def _remote(source: str) -> dict[str, Any]:
    def file(model: str, pattern: str) -> ModelConfig:
        return ModelConfig(model_id=model, origin_file_pattern=pattern)

    edit = "edit" in source.lower()
    return {
        "model_configs": [file(source, TRANSFORMER), file(BASE, TEXT_ENCODER), file(BASE, VAE)],
        "tokenizer_config": file(BASE, "tokenizer/"),
        "processor_config": file(EDIT_BASE, "processor/") if edit else None,
    }


def _local(folder: Path) -> dict[str, Any]:
    processor, tokenizer = folder / "processor", folder / "tokenizer"
    if not processor.is_dir() and not tokenizer.is_dir():
        raise ModelError(f"model folder {folder}: tokenizer/ is missing (processor/ for an edit model)")
    return {
        "model_configs": [_files(folder, pattern) for pattern in (TRANSFORMER, TEXT_ENCODER, VAE)],
        "tokenizer_config": ModelConfig(path=str(tokenizer)) if tokenizer.is_dir() else None,
        "processor_config": ModelConfig(path=str(processor)) if processor.is_dir() else None,
    }


def _files(folder: Path, pattern: str) -> ModelConfig:
    found = sorted(str(path) for path in folder.glob(pattern))
    if not found:
        raise ModelError(f"model folder {folder}: {pattern} is missing; lay it out as {BASE} is on the hub")
    return ModelConfig(path=found if len(found) > 1 else found[0])
