"""diffusers and DiffSynth on the same weights, the same LoRA and the same request."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import AdapterSource, match_adapter, read_adapter, weight_norms, write_synthetic_adapter
from pytest_loraperf.models import Synthetic
from pytest_loraperf.registry import QWEN_IMAGE
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.strategies import ATTACH, FUSE, Step
from pytest_loraperf.verdict.equivalence import DEFAULT_REL_L2

CPU = Device("cpu", "CPU")
BF16 = DEFAULT_REL_L2[None]
"""The default limit of ``output_equivalent`` on bf16, relative L2."""
NOISE = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(TINY_REQUEST.seed), dtype=torch.bfloat16)
"""The noise that DiffSynth draws, in the dtype in which it does: not every torch draws the same in each."""


@cache
def pipelines() -> tuple[Any, Any]:
    """Both libraries' pipelines with DiffSynth's weights; prompts are the same seeded embeddings in both."""
    ours = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
    describe(QWEN_IMAGE).seed_prompts(ours, "tiny")
    theirs = Diffusers(CPU).build(Synthetic(), CPU, on_cpu=False)
    theirs.transformer.load_state_dict(ours.dit.state_dict())
    theirs.text_encoder = theirs.vae = None
    return ours, theirs


def outputs(tmp_path: Any, step: Step | None, *, lora_in_both: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    pipelines.cache_clear()
    ours, theirs = pipelines()
    libraries = (DiffSynth(CPU), ours), (Diffusers(CPU), theirs)
    if step is not None:
        names = libraries[0][0].lora_targets(ours)
        path = write_synthetic_adapter(tmp_path / "a.safetensors", weight_norms(ours.dit, names), strength=0.3)
        for backend, pipe in libraries if lora_in_both else libraries[:1]:
            match = match_adapter(read_adapter(AdapterSource(path, 0.8)), backend.lora_shapes(pipe))
            backend.apply(pipe, step, (match,))
    packed = NOISE.view(1, 16, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, 64)
    first = libraries[0][0].generate(ours, TINY_REQUEST).latents
    second = libraries[1][0].generate(theirs, TINY_REQUEST.with_changes(extra={"latents": packed})).latents
    return first.float(), second.float()


def distance(found: tuple[torch.Tensor, torch.Tensor]) -> float:
    first, second = found
    return float(torch.linalg.vector_norm(first - second) / torch.linalg.vector_norm(first))


@pytest.mark.parametrize("step", [None, ATTACH, FUSE], ids=str)
def test_outputs_are_equivalent(tmp_path: Any, step: Step | None) -> None:
    assert distance(outputs(tmp_path, step)) < BF16


def test_a_lora_in_one_of_them_alone_is_seen(tmp_path: Any) -> None:
    assert distance(outputs(tmp_path, ATTACH, lora_in_both=False)) > 2 * BF16
