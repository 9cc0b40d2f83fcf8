"""Synthetic pipelines: DiffSynth's own classes with seeded random weights, nothing downloaded."""

from __future__ import annotations

from typing import Any

import torch

from pytest_loraperf.backends.blocks import repeated_blocks
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import SIZES, Synthetic, SyntheticSize
from pytest_loraperf.registry import QWEN_IMAGE


def build_synthetic(
    size: SyntheticSize,
    *,
    pipeline: str = QWEN_IMAGE,
    seed: int = 0,
    device: torch.device | str,
    weights_on: torch.device | str | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Any:
    """Build a pipeline of ``registry.PIPELINES`` that computes on ``device``.

    Its weights are kept on ``weights_on``, there too unless given.
    ``tiny`` has a VAE, Qwen-Image's a text encoder too. ``full`` is the transformer alone: prompts become seeded
    embeddings, and no image is decoded.

    Raises:
        ModelError: the full model was asked for on the CPU.
    """
    model = Synthetic(size, pipeline=pipeline, seed=seed)
    return build_for(model, device, weights_on or device, dtype, draw_later=False)


def build_for(
    model: Synthetic,
    device: torch.device | str,
    weights_on: torch.device | str,
    dtype: torch.dtype,
    *,
    draw_later: bool,
) -> Any:
    """Build a pipeline as ``build_synthetic`` does; with ``draw_later`` its blocks are for ``undrawn``.

    Raises:
        ModelError: the full model was asked for on the CPU.
    """
    described = describe(model.pipeline)
    if model.size == "full" and torch.device(device).type == "cpu":
        tiny, full = (Synthetic(each, pipeline=model.pipeline) for each in SIZES)
        raise ModelError(f"{full} has {described.billions:g} B parameters and needs a CUDA device; use {tiny}")
    pipe = described.assemble(model.size, device=device, dtype=dtype)
    generator = torch.Generator(device).manual_seed(model.seed)
    for module in pipe.children():
        later = [name for name, _ in repeated_blocks(module)] if draw_later and module is pipe.dit else ()
        fill(module, generator, weights_on=weights_on, dtype=dtype, later=later)
        # DiffSynth's loader casts what is no parameter too (the rotary frequencies of the text encoder).
        module.to(dtype)
    return pipe.eval()
