"""A seeded synthetic adapter of chosen rank and strength, in a real file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK = 64
"""The rank of a synthetic adapter."""
Norms = Mapping[str, tuple[int, int, float]]
"""(out_features, in_features, ‖W‖_F) by the layer's name."""


class HasLayers(Protocol):
    """A module, or what has its layers by name."""

    def get_submodule(self, target: str, /) -> torch.nn.Module:
        """Return a layer."""


def weight_norms(
    module: HasLayers, names: Iterable[str], device: torch.device | str | None = None
) -> dict[str, tuple[int, int, float]]:
    """Return the shape and the Frobenius norm of the weight of these Linear layers.

    They are computed on ``device``, where it is given: a CPU takes half a minute for 20 B parameters in bf16.
    """
    found = {}
    for name in names:
        weight = module.get_submodule(name).get_parameter("weight")
        norm = torch.linalg.vector_norm(weight.detach().to(device), dtype=torch.float32)
        found[name] = (weight.shape[0], weight.shape[1], float(norm))
    return found


def write_synthetic_adapter(
    path: Path,
    norms: Norms,
    *,
    rank: int = RANK,
    strength: float = 0.07,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> Path:
    """Write Gaussian factors with ‖up @ down‖_F = ``strength`` · ‖W‖_F for each layer, in DiffSynth's convention.

    A layer's values depend on the seed, its name and the kind of device alone. The rank is at most the smaller
    side of the layer.
    """
    tensors: dict[str, Tensor] = {}
    for name, (out_features, in_features, norm) in norms.items():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        r = min(rank, out_features, in_features)
        down = torch.randn(r, in_features, generator=generator, device=device)
        up = torch.randn(out_features, r, generator=generator, device=device)
        # ‖BA‖² = tr(BᵀB · AAᵀ): r × r products instead of the full ΔW.
        product = torch.sqrt(torch.sum((up.T @ up) * (down @ down.T)))
        factor = torch.sqrt(strength * norm / product)
        tensors[f"{name}.lora_A.default.weight"] = (down * factor).to("cpu", dtype).contiguous()
        tensors[f"{name}.lora_B.default.weight"] = (up * factor).to("cpu", dtype).contiguous()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    return partial.replace(path)
