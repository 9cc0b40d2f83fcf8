"""Weights that are drawn later: a block gets its values when it is streamed, with all that was done to it.

Otherwise each step would bring every block to the GPU and back, and all of a model would have to be in host memory
in the type that it is drawn in, to end up in half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

ATTRIBUTE = "loraperf_undrawn"
Change = Callable[[Tensor], Tensor]
Keep = Callable[[str, Tensor], Tensor]
"""Takes the name of a parameter and its values; returns them where they are kept."""
Fuse = Callable[[nn.Module, Mapping[str, Tensor]], object]
"""Adds the factors of a LoRA, ``NAME.lora_A.weight`` and ``NAME.lora_B.weight``, to a module's layers."""


@dataclass
class _Weight:
    """A parameter that waits: what stands for it, how it is drawn, and what is done to it after, in this order."""

    stand_in: nn.Parameter
    std: float | None
    changes: list[Change] = field(default_factory=list)


@dataclass
class _Block:
    """The parameters of a block by their names in the model, in the order in which they are drawn."""

    state: Tensor
    weights: dict[str, _Weight] = field(default_factory=dict)


def draw(shape: torch.Size, std: float | None, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return values of this standard deviation on the generator's device, ones where it is None."""
    values = torch.empty(shape, dtype=dtype, device=generator.device)
    return values.fill_(1.0) if std is None else values.normal_(0.0, std, generator=generator)


class Undrawn:
    """The blocks of a model whose parameters are on the meta device, and how they come to their values."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        """Take the generator that draws the model, and the type in which it does."""
        self._generator = generator
        self._dtype = dtype
        self._blocks: dict[str, _Block] = {}

    def add(self, block: str, name: str, shape: torch.Size, std: float | None) -> nn.Parameter:
        """Let a parameter wait, and return what stands for it; the block's first is the next to be drawn."""
        if block not in self._blocks:
            self._blocks[block] = _Block(self._generator.get_state())
        stand_in = nn.Parameter(torch.empty(shape, dtype=self._dtype, device="meta"), requires_grad=False)
        self._blocks[block].weights[name] = _Weight(stand_in, std)
        return stand_in

    def block_of(self, name: str) -> str | None:
        """Return the block in which a parameter waits, None where it does not wait."""
        return next((block for block, each in self._blocks.items() if name in each.weights), None)

    def change(self, name: str, change: Change) -> bool:
        """Let a parameter be changed once it is drawn; return whether it waits."""
        block = self.block_of(name)
        if block is not None:
            self._blocks[block].weights[name].changes.append(change)
        return block is not None

    def values(self, block: str) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters of a block as they are by now, on the device that draws them, one at a time."""
        generator = torch.Generator(self._generator.device)
        generator.set_state(self._blocks[block].state)
        for name, weight in self._blocks[block].weights.items():
            value = draw(weight.stand_in.shape, weight.std, self._dtype, generator)
            for change in weight.changes:
                value = change(value)
            yield name, value

    def take(self, block: str) -> Iterator[tuple[str, Tensor]]:
        """Yield the same, once: the block waits no more."""
        yield from self.values(block)
        del self._blocks[block]

    @property
    def blocks(self) -> dict[str, dict[str, nn.Parameter]]:
        """The blocks that wait, and what stands for their parameters, by name."""
        return {
            block: {name: weight.stand_in for name, weight in each.weights.items()}
            for block, each in self._blocks.items()
        }


def _in_host_memory(_name: str, value: Tensor) -> Tensor:
    return value.cpu()


def undrawn(module: nn.Module) -> Undrawn | None:
    """Return what of a model is drawn later, None where it all is drawn."""
    found: Undrawn | None = vars(module).get(ATTRIBUTE)
    return found


def settle(module: nn.Module, block: str, keep: Keep = _in_host_memory) -> None:
    """Give a block its parameters, where ``keep`` puts their values."""
    waiting = vars(module)[ATTRIBUTE]
    kept = {name: keep(name, value) for name, value in waiting.take(block)}
    for name, value in kept.items():  # all or none: it may be tried again
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
    if not waiting.blocks:
        delattr(module, ATTRIBUTE)


def settle_all(module: nn.Module) -> None:
    """Draw into plain host memory all that waits: what comes next does not know of it."""
    waiting = undrawn(module)
    for block in waiting.blocks if waiting is not None else ():
        settle(module, block)


def fuse_later(module: nn.Module, factors: Mapping[str, Tensor], fuse: Fuse) -> dict[str, Tensor]:
    """Let a LoRA be fused into the layers that wait once they are drawn; return the factors of the others."""
    waiting = undrawn(module)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in factors.items():
        name, _, kind = key.rpartition(".lora_")
        layers.setdefault(name, {})[f"layer.lora_{kind}"] = tensor
    put_off = {
        name
        for name, own in layers.items()
        if waiting is not None and waiting.change(f"{name}.weight", partial(_fused, fuse, own))
    }
    return {key: tensor for key, tensor in factors.items() if key.rpartition(".lora_")[0] not in put_off}


def _fused(fuse: Fuse, factors: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    layer = _layer(weight, None)
    fuse(nn.ModuleDict({"layer": layer}), factors)
    return layer.weight.data


def _layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class Layers:
    """The Linear layers of a model by name; one that waits is drawn with its block, to be looked at."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._block: str | None = None
        self._drawn: dict[str, Tensor] = {}

    def get_submodule(self, name: str) -> nn.Module:
        """Return a layer as it is by now."""
        waiting = undrawn(self._module)
        block = waiting.block_of(f"{name}.weight") if waiting is not None else None
        if waiting is None or block is None:
            return self._module.get_submodule(name)
        if block != self._block:
            self._drawn = {}  # not two of them at a time
            self._block, self._drawn = block, dict(waiting.values(block))
        return _layer(self._drawn[f"{name}.weight"], self._drawn.get(f"{name}.bias"))
