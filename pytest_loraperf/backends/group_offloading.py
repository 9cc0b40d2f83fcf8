"""diffusers' group offloading: blocks of the transformer, and leaves of the other models, come when called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from torch._subclasses.fake_tensor import FakeTensor

from pytest_loraperf.backends.protocol import StepEffect

GROUP = "group"
SCHEMES = (GROUP,)
HOOK = "group_offloading"


def offload(pipe: Any, device: str) -> StepEffect:
    """Keep the weights in host memory; a block is brought over before its call, by a stream of its own on CUDA.

    diffusers keeps no block on the device, however much room there is: the card's size changes nothing.
    """
    on_gpu = torch.device(device).type == "cuda"
    layers = 0
    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        streamed = on_gpu and not _without_values(module)
        # A stream brings the next block while one is computed: two are on the device, as in a group of two.
        size = 1 if streamed or not on_gpu else 2
        blocks = {"offload_type": "block_level", "num_blocks_per_group": size}
        how = blocks if name == "transformer" else {"offload_type": "leaf_level"}
        apply_group_offloading(
            module,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            use_stream=streamed,
            **how,
        )
        layers += len(_groups(module))
    return StepEffect(layers, layers, "" if on_gpu else "the weights are in host memory already: no GPU here")


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
