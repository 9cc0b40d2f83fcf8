"""diffusers' group offloading: blocks or layers of the transformer, layers of other models come when called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from torch._subclasses.fake_tensor import FakeTensor

from pytest_loraperf.backends.protocol import StepEffect
from pytest_loraperf.backends.streaming.copies import CudaCopies
from pytest_loraperf.backends.streaming.stacks import size_of
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.tensors import tensors_of
from pytest_loraperf.units import format_size

GROUP = "group"
SCHEMES = (GROUP,)
HOOK = "group_offloading"
MAIN = "transformer"
BLOCKS, LAYERS = "block_level", "leaf_level"
SLOTS = 2
"""A stream brings the next block or layer while one is computed."""


def offload(pipe: Any, device: str, card: int) -> StepEffect:
    """Keep the weights in host memory; a block is brought over before its call, by a stream of its own on CUDA.

    Where a card of so many bytes (0 if unknown) does not hold two blocks of the transformer, its layers come.

    Raises:
        StrategyError: it holds no two layers; the message says what is needed.
    """
    on_gpu = torch.device(device).type == "cuda"
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    overhead = CudaCopies.overhead if on_gpu else 0
    level = _level(modules, card, overhead)
    layers = 0
    for name, module in modules.items():
        streamed = on_gpu and not _without_values(module)
        # As many blocks are on the device as in a group of two.
        size = 1 if streamed or not on_gpu else SLOTS
        blocks = {"offload_type": BLOCKS, "num_blocks_per_group": size}
        how = blocks if name == MAIN and level == BLOCKS else {"offload_type": LAYERS}
        apply_group_offloading(
            module,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            use_stream=streamed,
            **how,
        )
        layers += len(_groups(module))
    notes = () if on_gpu else ("the weights are in host memory already: no GPU here",)
    return StepEffect(layers, layers, "; ".join((*notes, *_of_the_card(modules[MAIN], level, card, overhead))))


def needed(module: torch.nn.Module, level: str) -> int:
    """Return the most bytes of a module's weights that are on the device at once, at a level."""
    if level == LAYERS:
        return sum(sorted(_size(part) for part in module.modules() if not list(part.children()))[-SLOTS:])
    lists = (part for part in module.children() if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential))
    blocks = sorted(_size(block) for part in lists for block in part)
    return _size(module) - sum(blocks[:-SLOTS])


def _size(module: torch.nn.Module) -> int:
    return size_of(list(tensors_of(module)))


def _level(modules: Mapping[str, torch.nn.Module], card: int, overhead: int) -> str:
    """Return the level at which the transformer fits on the card."""
    if not card:
        return BLOCKS
    room = card - overhead
    for name, module in modules.items():
        least = needed(module, LAYERS)
        if least > room:
            beside = f" and {format_size(overhead)} beside tensors" if overhead else ""
            raise StrategyError(
                f"offload[{GROUP}]: a limit of {format_size(card)} is too small: "
                f"{format_size(least + overhead)} are needed for {SLOTS} layers of the {name}{beside}, "
                "before anything is computed; raise --loraperf-offload-limit or --gpu-budget"
            )
    return BLOCKS if needed(modules[MAIN], BLOCKS) <= room else LAYERS


def _of_the_card(main: torch.nn.Module, level: str, card: int, overhead: int) -> Iterator[str]:
    """Say what the card's size changed, and where it changed nothing though it could."""
    if not card:
        return
    if level == LAYERS:
        blocks = format_size(needed(main, BLOCKS) + overhead)
        yield f"layers come one by one: {SLOTS} blocks need {blocks} of a card of {format_size(card)}"
    elif overhead and _size(main) + overhead <= card:
        yield (
            f"a card of {format_size(card)} has room for the whole {MAIN} ({format_size(_size(main))}), "
            "but diffusers' group offloading keeps no block on it"
        )


def _without_values(module: torch.nn.Module) -> bool:
    """Whether this is a forecast: what has no values cannot be pinned, which diffusers does for streams."""
    return any(isinstance(parameter, FakeTensor) for parameter in module.parameters())


@contextlib.contextmanager
def brought(module: torch.nn.Module) -> Iterator[None]:
    """Have all groups of a module on the device, so that its layers can be called alone."""
    groups = _groups(module)
    for group in groups:
        group.onload_()
    if groups and groups[0].onload_device.type == "cuda":
        torch.cuda.synchronize()
    try:
        yield
    finally:
        for group in groups:
            group.offload_()


def _groups(module: torch.nn.Module) -> list[Any]:
    found: dict[int, Any] = {}
    for part in module.modules():
        registry = getattr(part, "_diffusers_hook", None)
        hook = None if registry is None else registry.get_hook(HOOK)
        if hook is not None:
            found[id(hook.group)] = hook.group
    return list(found.values())
