"""On a CUDA device: diffusers and DiffSynth on the same weights, LoRA and request, tiny and at full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.backends.diffusers_models import ASSEMBLERS
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.gpu.device import Device, resolve_device
from pytest_loraperf.lora import AdapterSource, match_adapter, read_adapter, weight_norms, write_synthetic_adapter
from pytest_loraperf.models import SyntheticSize
from pytest_loraperf.registry import QWEN_IMAGE
from pytest_loraperf.request import FULL_REQUEST, TINY_REQUEST, Request
from pytest_loraperf.session import FULL_MODEL_NEEDS
from pytest_loraperf.strategies import ATTACH
from pytest_loraperf.verdict.equivalence import DEFAULT_REL_L2

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
BF16 = DEFAULT_REL_L2[None]
"""The default limit of ``output_equivalent`` on bf16, relative L2."""
REQUESTS: dict[SyntheticSize, Request] = {"tiny": TINY_REQUEST, "full": FULL_REQUEST}


def pipelines(size: SyntheticSize, device: Device) -> tuple[Any, Any]:
    """Both libraries' pipelines, the second with the very tensors of the first: a card holds them once."""
    ours = build_synthetic(size, device=device.torch_name)
    describe(QWEN_IMAGE).seed_prompts(ours, size)
    theirs = ASSEMBLERS[QWEN_IMAGE](size == "full")
    theirs.transformer.load_state_dict(ours.dit.state_dict(), assign=True)
    theirs.transformer.eval()
    theirs.text_encoder = theirs.vae = None
    return ours, theirs


def packed_noise(request: Request) -> torch.Tensor:
    """The noise that DiffSynth draws for a request, in bf16, as diffusers takes it: 2 x 2 patches in a row."""
    height, width = request.height // 8, request.width // 8
    generator = torch.Generator().manual_seed(request.seed)
    noise = torch.randn(1, 16, height, width, generator=generator, dtype=torch.bfloat16)
    patches = noise.view(1, 16, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(1, height * width // 4, 64)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    first, second = first.float(), second.float()
    return float(torch.linalg.vector_norm(first - second) / torch.linalg.vector_norm(first))


@pytest.mark.parametrize("size", REQUESTS)
def test_the_libraries_agree_with_and_without_a_lora(size: SyntheticSize, tmp_path: Path) -> None:
    device = resolve_device("auto")
    if size == "full" and device.total < FULL_MODEL_NEEDS:
        pytest.skip("the full model does not fit in bf16")
    request = REQUESTS[size]
    ours, theirs = pipelines(size, device)
    libraries = (DiffSynth(device), ours), (Diffusers(device), theirs)

    def latents() -> tuple[torch.Tensor, torch.Tensor]:
        with_noise = request.with_changes(extra={"latents": packed_noise(request).to(device.torch_name)})
        first = libraries[0][0].generate(ours, request).latents
        return first, libraries[1][0].generate(theirs, with_noise).latents

    plain, other_plain = latents()
    assert distance(plain, other_plain) < BF16

    norms = weight_norms(ours.dit, libraries[0][0].lora_targets(ours))
    path = write_synthetic_adapter(tmp_path / "a.safetensors", norms, strength=0.3, device=device.torch_name)
    adapter = read_adapter(AdapterSource(path))
    for backend, pipe in libraries:
        backend.apply(pipe, ATTACH, (match_adapter(adapter, backend.lora_shapes(pipe)),))
    found, other = latents()
    assert distance(found, other) < BF16
    # The limit would see a LoRA that one of them alone has.
    assert distance(found, other_plain) > 2 * BF16
