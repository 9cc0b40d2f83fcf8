"""The repeated blocks of a model, and compiling them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch


def repeated_blocks(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the repeated blocks by name, which are compiled one by one, or the whole module."""
    kinds = getattr(module, "_repeated_blocks", [type(module).__name__])
    return [(name, part) for name, part in module.named_modules() if type(part).__name__ in kinds]


def inside(layers: Iterable[str], blocks: Iterable[tuple[str, torch.nn.Module]]) -> list[str]:
    """Return the layers that are inside of these blocks, or all where none is."""
    names = list(layers)
    prefixes = tuple(f"{name}." for name, _ in blocks)
    return [name for name in names if name.startswith(prefixes)] or names


def own_code(blocks: Sequence[torch.nn.Module]) -> None:
    """Give the blocks a ``forward`` with a code object of their own, one for each class of them.

    Dynamo keeps what it compiled, how often, and what it gave up on, by code object. What one arm does to it is no
    business of another: DiffSynth's wrapped quantized Linears break the graph of a block, the block's code is then
    left uncompiled, and torch 2.11 raises InternalTorchDynamoError on the plain torchao Linears inside of it.
    """
    copies: dict[type, Callable[..., Any]] = {}
    for block in blocks:
        kind = type(block)
        if "forward" in vars(block) or not isinstance(kind.forward, FunctionType):
            continue  # someone's own forward is what is to be measured
        if kind not in copies:
            copies[kind] = _copied(kind.forward)
        block.forward = MethodType(copies[kind], block)


def _copied(function: FunctionType) -> FunctionType:
    code = function.__code__.replace()
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__dict__.update(function.__dict__)
    return copy
