"""Equal blocks allocate equally: the first is run, and what it allocated and freed is repeated for the others.

A block is one of a ``ModuleList``, as the layers of a transformer are. Two are equal where their modules, the
sizes, types and devices of all their tensors, and what they are called with are. One that changes itself, or asks
how much memory is in use, is run each time. Hooks, such as those that stream weights, are always run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pytest_loraperf.forecast.allocator import Block
from pytest_loraperf.forecast.remembered import PLAIN, Made, New, NotToRememberError, keys, made_of
from pytest_loraperf.forecast.tracker import Allocation, Free, Recording, StorageTracker

NAMES = ("name", "training")
"""Attributes of DiffSynth's and torch's modules that change nothing of what they allocate."""


@dataclass(frozen=True)
class _Tape:
    """What a block did: its events, what it returned, and the event that is the memory of each new result."""

    events: tuple[Allocation | Free, ...]
    made: Made
    memory: tuple[int | None, ...]


class Replay:
    """Runs the blocks of a pipeline, or repeats what an equal one did."""

    def __init__(self, tracker: StorageTracker) -> None:
        self._tracker = tracker
        self._blocks: set[int] = set()
        self._tapes: dict[Hashable, _Tape] = {}

    def look_for_blocks(self, pipeline: object) -> None:
        """Find the blocks of a pipeline that is a module of modules; of another kind, none."""
        modules = pipeline.modules() if isinstance(pipeline, torch.nn.Module) else ()
        lists = [module for module in modules if isinstance(module, torch.nn.ModuleList)]
        self._blocks = {id(block) for each in lists for block in each}

    def calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for ``torch.nn.Module.__call__``, which is ``call``."""

        def replaying(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            # What is inside of a block is part of its tape.
            if self._tracker.recording is not None or id(module) not in self._blocks:
                return call(module, *args, **kwargs)
            if not (module._forward_pre_hooks or module._forward_hooks):  # noqa: SLF001 - torch has no other name for them
                return self._played(module, lambda: call(module, *args, **kwargs), args, kwargs)
            if module._compiled_call_impl is not None:  # noqa: SLF001 - where torch keeps what is called instead
                return call(module, *args, **kwargs)  # its hooks are inside
            forward = module.forward

            def between(*args: Any, **kwargs: Any) -> Any:
                return self._played(module, lambda: forward(*args, **kwargs), args, kwargs)

            with patch.object(module, "forward", between):
                return call(module, *args, **kwargs)

        return replaying

    def _played(
        self, module: torch.nn.Module, call: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return what the call does, or repeat what an equal one did."""
        inputs: list[Tensor] = []
        try:
            given = tuple(keys((args, *kwargs, *kwargs.values()), inputs))
        except NotToRememberError:
            return call()
        state = tuple(_state(module))
        tape = self._tapes.get((state, given))
        if tape is not None:
            return self._repeat(tape, inputs)
        return self._record(call, module, state, given, inputs)

    def _record(
        self,
        call: Callable[[], Any],
        module: torch.nn.Module,
        state: Hashable,
        given: Hashable,
        inputs: list[Tensor],
    ) -> Any:
        self._tracker.recording = recording = Recording()
        try:
            result = call()
        finally:
            self._tracker.recording = None
        if not recording.asked and tuple(_state(module)) == state:
            tape = self._tape(recording, result, inputs)
            if tape is not None:
                self._tapes[state, given] = tape
        return result

    def _tape(self, recording: Recording, result: Any, inputs: list[Tensor]) -> _Tape | None:
        try:
            made = made_of(result, inputs)
        except NotToRememberError:
            return None
        results = [result] if made.kind is None else list(result)
        if any(isinstance(each, Tensor) and self._tracker.known.of(each) is not None for each in results):
            return None
        memory = tuple(
            recording.living.get(_storage(each)) if isinstance(part, New) else None
            for each, part in zip(results, made.parts, strict=True)
        )
        kept = sorted(event for event in memory if event is not None)
        if kept != sorted(recording.living.values()):
            return None  # it keeps memory that it does not return
        return _Tape(tuple(recording.events), made, memory)

    def _repeat(self, tape: _Tape, inputs: list[Tensor]) -> Any:
        allocator = self._tracker.allocator
        living: dict[int, Block | None] = {}
        for number, event in enumerate(tape.events):
            if isinstance(event, Allocation):
                living[number] = allocator.allocate(event.size)
            else:
                allocator.free(living.pop(event.of))
        result = self._tracker.carry_out.make(tape.made, inputs)
        results = [result] if tape.made.kind is None else result
        for each, event_of in zip(results, tape.memory, strict=True):
            if event_of is not None:
                self._tracker.adopt(each.untyped_storage(), living[event_of])
        return result


def _storage(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - the one identity a storage has
    return key


def _state(module: torch.nn.Module) -> Iterator[Hashable]:
    """Yield all that tells a module from others of its kind, and what its tensors are but for their values."""
    for name, part in module.named_modules():
        yield name, type(part)
        for attribute, value in vars(part).items():
            if isinstance(value, PLAIN) and attribute not in NAMES:
                yield attribute, value
            elif isinstance(value, list):
                yield attribute, tuple(map(_tensor, value))
        # Parameters and buffers, which torch keeps in dictionaries.
        for tensors in (part._parameters, part._buffers):  # noqa: SLF001 - all of them, None included
            yield tuple((key, _tensor(tensor)) for key, tensor in tensors.items())


def _tensor(value: Any) -> Hashable:
    if isinstance(value, FakeTensor):
        return value.shape, value.stride(), value.dtype, value.fake_device
    if is_traceable_wrapper_subclass(value):
        inner = tuple(_tensor(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        return type(value).__qualname__, inner
    return type(value).__qualname__
