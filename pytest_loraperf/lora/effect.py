"""Whether a LoRA is in a model's layers: what it does to probe activations, layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pytest_loraperf.lora.adapter import LoraLayer
from pytest_loraperf.lora.match import Match

OUTPUTS = 2**16
"""Outputs that a layer is probed by, as many rows as that takes: the noise of a gain falls with their root."""
ROWS = (16, 256)
"""The fewest and the most rows of a probe; multiples of 16, as fp8 products need."""

LayerOf = Callable[[str], torch.nn.Module]


class EffectProbe:
    """Measures the effect gain of each layer that adapters change.

    The gain of a layer is ⟨Δ effective, Δ intended⟩ / ⟨Δ intended, Δ intended⟩ on probe activations x, seeded by
    the layer's name: Δ intended is scale · B A x of all adapters, Δ effective the layer's output less that of
    the layer without LoRA, W x in float32. It is 1 where the LoRA is there, 0 where it is not. What quantization
    adds to the output is nearly orthogonal to Δ intended, so it moves the gain by little: the error of the delta
    itself would be *larger* for the right order, which rounds all of W, than for the wrong one, which loses the
    LoRA.
    """

    def __init__(self, matches: Sequence[Match]) -> None:
        self._adapters: dict[str, list[tuple[LoraLayer, float]]] = {}
        for match in matches:
            for name, layer in match.layers.items():
                self._adapters.setdefault(name, []).append((layer, match.scale))
        self._base: dict[str, Tensor] = {}

    @torch.no_grad()
    def take_base(self, layer_of: LayerOf, device: str) -> None:
        """Keep the layers' outputs as they are before any step: (rows, out_features), float32, in host memory.

        The probes are drawn on ``device``, which the gains are measured on later.
        """
        found = {}
        for name in sorted(self._adapters):  # block by block: a block may be drawn to be looked at
            weight, bias = (getattr(layer_of(name), kind) for kind in ("weight", "bias"))
            outputs, features = weight.shape
            # One layer at a time is computed with on the device: on a CPU all would take minutes.
            output = probe(name, outputs, features, device) @ weight.to(device).float().T
            found[name] = (output if bias is None else output + bias.to(device).float()).cpu()
        self._base = {name: found[name] for name in self._adapters}

    @torch.no_grad()
    def gains(self, layer_of: LayerOf, device: str, dtype: torch.dtype) -> dict[str, float]:
        """Return the gain of each layer that the adapters intend to change; the layers compute on ``device``."""
        if not self._base:
            return {}
        found = []
        for name, base in self._base.items():
            outputs, features = self._adapters[name][0][0].shape
            x = probe(name, outputs, features, device)
            intended = self._intended(name, x)
            effective = layer_of(name)(x.to(dtype)).float() - base.to(device)
            found.append(torch.stack([(effective * intended).sum(), intended.square().sum()]))
        # Waits for the device once, not in each layer.
        gains = zip(self._base, torch.stack(found).tolist(), strict=True)
        return {name: product / power for name, (product, power) in gains if power > 0}

    def _intended(self, name: str, x: Tensor) -> Tensor:
        changes = [
            scale * (x @ _as(layer.down, x).T) @ _as(layer.up, x).T for layer, scale in self._adapters[name]
        ]
        return torch.stack(changes).sum(0)


def _as(weight: Tensor, x: Tensor) -> Tensor:
    """Return a weight where and as x is; copied before it is cast, which the CPU would take long for."""
    return weight.to(x.device).to(x.dtype)


def probe(name: str, outputs: int, features: int, device: str) -> Tensor:
    """Return activations of shape (rows, features), float32, for a layer of so many outputs and this name."""
    fewest, most = ROWS
    rows = min(max(OUTPUTS // outputs // 16 * 16, fewest), most)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.randn(rows, features, generator=torch.Generator(device).manual_seed(seed), device=device)
