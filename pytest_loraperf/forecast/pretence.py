"""Where libraries ask CUDA itself, they are told of the card that is forecast for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pytest_loraperf.forecast.allocator import CachingAllocator
from pytest_loraperf.forecast.card import Card

REAL_GENERATOR = torch.Generator


class CudaGenerator(torch.Generator):
    """A generator that says it is on CUDA; what it draws has no values anyway."""

    device = torch.device("cuda:0")


class PretendedStream:
    """A stream on which everything is done at once."""

    def __init__(self, _device: object = None) -> None:
        """Take the device that it would be of."""

    def record_event(self) -> None:
        """Return no event: there is nothing to wait for."""

    def wait_event(self, _event: object) -> None:
        """Wait for nothing."""

    def wait_stream(self, _stream: object) -> None:
        """Wait for nothing."""


def _generator(device: object = "cpu") -> torch.Generator:
    return CudaGenerator() if torch.device(str(device)).type == "cuda" else REAL_GENERATOR(str(device))


@contextmanager
def pretended(
    card: Card,
    used: Callable[[], int],
    outside: Callable[[], int],
    allocator: CachingAllocator,
    compiled: Callable[..., Any],
    streams: list[PretendedStream],
) -> Iterator[None]:
    """Let the card be there in this context.

    Args:
        card: what it is.
        used: returns the bytes in use, of which ``outside`` are not the allocator's.
        outside: returns those.
        allocator: has those of tensors.
        compiled: returns what stands for a module's compiled call.
        streams: those that are made beside the one that computes are added to it.
    """
    properties = SimpleNamespace(
        name=card.name, major=card.capability[0], minor=card.capability[1], total_memory=card.total
    )

    def _stream(device: object = None) -> PretendedStream:
        streams.append(PretendedStream(device))
        return streams[-1]

    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda _device=None: card.capability,
        "get_device_name": lambda _device=None: card.name,
        "get_device_properties": lambda _device=None: properties,
        "mem_get_info": lambda _device=None: (card.total - used(), card.total),
        "empty_cache": allocator.empty_cache,
        "synchronize": lambda _device=None: None,
        "memory_allocated": lambda _device=None: allocator.allocated,
        "memory_reserved": lambda _device=None: used() - outside(),
        "Stream": _stream,
        "stream": nullcontext,
        "current_stream": PretendedStream,
    }

    def _compile(module: torch.nn.Module, *_: Any, **__: Any) -> None:
        module._compiled_call_impl = compiled(module._call_impl)  # noqa: SLF001 - where torch keeps the two

    with ExitStack() as stack:
        stack.enter_context(patch.multiple(torch.cuda, **cuda))
        stack.enter_context(patch.multiple(torch.nn.Module, _apply=_apply, compile=_compile))
        stack.enter_context(patch.object(torch, "Generator", _generator))
        # What is asked of is in memory that was pinned for a device, if it is in host memory at all.
        stack.enter_context(patch.object(torch.Tensor, "is_pinned", lambda tensor: tensor.device.type == "cpu"))
        if torch.version.cuda is None:  # a build for the CPU, which torchao asks for its CUDA
            stack.enter_context(patch.object(torch.version, "cuda", "12.8"))
        yield


def _apply(module: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> torch.nn.Module:
    """Do as ``torch.nn.Module._apply`` does with real tensors: Parameters stay, what is in them moves.

    With fake tensors torch swaps the two, and cannot where anything refers to them weakly.
    """
    for child in module.children() if recurse else ():
        _apply(child, fn)
    for name, parameter in module._parameters.items():  # noqa: SLF001 - the same
        if parameter is None:
            continue
        with torch.no_grad():
            applied = fn(parameter)
        if is_traceable_wrapper_subclass(applied):
            module._parameters[name] = torch.nn.Parameter(applied, parameter.requires_grad)  # type: ignore[arg-type]  # noqa: SLF001 - the same
        else:
            parameter.data = applied
    for name, buffer in module._buffers.items():  # noqa: SLF001 - the same
        if buffer is not None:
            module._buffers[name] = fn(buffer)  # noqa: SLF001 - the same
    return module
