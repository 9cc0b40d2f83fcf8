"""What an operation makes of what it is given, remembered: sixty equal blocks are worked out once.

FakeTensorMode has a cache of its own, which is right for tracing and four times as slow as this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

PLAIN = (int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass(frozen=True, slots=True)
class _New:
    """A result with memory of its own."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class _View:
    """A result in the memory of the input of this number."""

    of: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Same:
    """The input of this number itself."""

    of: int


_Part = _New | _View | _Same | None


@dataclass(frozen=True, slots=True)
class _Made:
    """The results of an operation; ``kind`` is tuple or list where there are several."""

    parts: tuple[_Part, ...]
    kind: Callable[[Sequence[Any]], Any] | None


class _NotToRememberError(Exception):
    """The operation was given or made something that is no part of a key."""


class Remembered:
    """Carries out operations on fake tensors, each with the same sizes, strides and types once."""

    def __init__(self, fake: FakeTensorMode) -> None:
        self._fake = fake
        self._made: dict[Hashable, _Made] = {}

    def __call__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what the operation returns."""
        inputs: list[Tensor] = []
        try:
            key = (func, *_keys(args, inputs), *kwargs, *_keys(kwargs.values(), inputs))
        except _NotToRememberError:
            args, kwargs = tree_map(self._faked, (tuple(args), kwargs))
            return func(*args, **kwargs)
        made = self._made.get(key)
        if made is None:
            result = func(*args, **kwargs)
            try:
                self._made[key] = _made(result, inputs)
            except _NotToRememberError:
                pass
            return result
        with _DisableTorchDispatch():
            if made.kind is None:
                return self._make(made.parts[0], inputs)
            return made.kind([self._make(part, inputs) for part in made.parts])

    def _faked(self, leaf: Any) -> Any:
        """Return a real tensor, such as one of an adapter file, as a fake one."""
        return self._fake.from_tensor(leaf) if type(leaf) in (Tensor, torch.nn.Parameter) else leaf

    def _make(self, part: _Part, inputs: Sequence[Tensor]) -> Tensor | None:
        if part is None:
            return None
        if isinstance(part, _Same):
            return inputs[part.of]
        if isinstance(part, _New):
            memory = torch.empty_strided(part.size, part.stride, dtype=part.dtype, device="meta")
            return FakeTensor(self._fake, memory, part.device)
        source = inputs[part.of]
        view = torch.empty(0, dtype=part.dtype, device="meta")
        view.set_(source.untyped_storage(), part.offset, part.size, part.stride)
        return FakeTensor(self._fake, view, source.fake_device)  # type: ignore[attr-defined]  # inputs are fake


def _keys(values: Any, inputs: list[Tensor]) -> Iterator[Hashable]:
    for value in values:
        if type(value) is FakeTensor:
            inputs.append(value)
            yield value.shape, value.stride(), value.storage_offset(), value.dtype, value.fake_device
        elif isinstance(value, PLAIN):
            yield type(value), value  # 1, 1.0 and True are equal
        elif isinstance(value, list | tuple):
            yield tuple(_keys(value, inputs))
        else:
            raise _NotToRememberError


def _made(result: Any, inputs: Sequence[Tensor]) -> _Made:
    if isinstance(result, tuple | list):
        parts = tuple(_part(each, inputs) for each in result)
        storages = [
            each.untyped_storage()._cdata
            for each, part in zip(result, parts, strict=True)
            if isinstance(part, _New)
        ]  # noqa: SLF001 - the one identity a storage has
        if len(set(storages)) < len(storages):
            raise _NotToRememberError
        return _Made(parts, type(result))
    return _Made((_part(result, inputs),), None)


def _part(result: Any, inputs: Sequence[Tensor]) -> _Part:
    if result is None:
        return None
    if type(result) is not FakeTensor or result.constant is not None:
        raise _NotToRememberError
    storage = result.untyped_storage()
    for number, each in enumerate(inputs):
        if each is result:
            return _Same(number)
        if each.untyped_storage()._cdata == storage._cdata:  # noqa: SLF001 - the same
            return _View(number, tuple(result.shape), result.stride(), result.storage_offset(), result.dtype)
    dense = (
        sum((n - 1) * s for n, s in zip(result.shape, result.stride(), strict=True)) + 1 if result.numel() else 0
    )
    if storage.nbytes() != dense * result.itemsize or result.storage_offset():
        raise _NotToRememberError  # it is a part of more memory than it shows
    return _New(tuple(result.shape), result.stride(), result.dtype, result.fake_device)
