"""What an operation makes of what it is given, remembered: sixty equal blocks are worked out once.

FakeTensorMode has a cache of its own, which is right for tracing and four times as slow as this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

PLAIN = (int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass(frozen=True, slots=True)
class New:
    """A result with memory of its own."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class View:
    """A result in the memory of the input of this number."""

    of: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Same:
    """The input of this number itself."""

    of: int


Part = New | View | Same | None


@dataclass(frozen=True, slots=True)
class Made:
    """The results of an operation; ``kind`` is tuple or list where there are several."""

    parts: tuple[Part, ...]
    kind: Callable[[Sequence[Any]], Any] | None


class NotToRememberError(Exception):
    """What was called was given, or made, something that is no part of a key."""


class Remembered:
    """Carries out operations on fake tensors, each with the same sizes, strides and types once."""

    def __init__(self, fake: FakeTensorMode) -> None:
        self._fake = fake
        self._made: dict[Hashable, Made] = {}

    def __call__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what the operation returns."""
        inputs: list[Tensor] = []
        try:
            key = (func, *keys(args, inputs), *kwargs, *keys(kwargs.values(), inputs))
        except NotToRememberError:
            args, kwargs = tree_map(self._faked, (tuple(args), kwargs))
            return func(*args, **kwargs)
        made = self._made.get(key)
        if made is None:
            result = func(*args, **kwargs)
            with suppress(NotToRememberError):
                self._made[key] = made_of(result, inputs)
            return result
        return self.make(made, inputs)

    def make(self, made: Made, inputs: Sequence[Tensor]) -> Any:
        """Return such results anew."""
        with _DisableTorchDispatch():
            if made.kind is None:
                return self._make(made.parts[0], inputs)
            return made.kind([self._make(part, inputs) for part in made.parts])

    def _faked(self, leaf: Any) -> Any:
        """Return a real tensor, such as one of an adapter file, as a fake one."""
        return self._fake.from_tensor(leaf) if type(leaf) in (Tensor, torch.nn.Parameter) else leaf

    def _make(self, part: Part, inputs: Sequence[Tensor]) -> Tensor | None:
        if part is None:
            return None
        if isinstance(part, Same):
            return inputs[part.of]
        if isinstance(part, New):
            memory = torch.empty_strided(part.size, part.stride, dtype=part.dtype, device="meta")
            return FakeTensor(self._fake, memory, part.device)
        source = inputs[part.of]
        view = torch.empty(0, dtype=part.dtype, device="meta")
        view.set_(source.untyped_storage(), part.offset, part.size, part.stride)
        return FakeTensor(self._fake, view, source.fake_device)  # type: ignore[attr-defined]  # inputs are fake


def keys(values: Iterable[Any], inputs: list[Tensor]) -> Iterator[Hashable]:
    """Yield what tells arguments from others, and add the tensors among them to the inputs.

    Raises:
        NotToRememberError: one is of a kind that cannot be told from others.
    """
    for value in values:
        if type(value) is FakeTensor:
            inputs.append(value)
            yield value.shape, value.stride(), value.storage_offset(), value.dtype, value.fake_device
        elif isinstance(value, PLAIN):
            yield type(value), value  # 1, 1.0 and True are equal
        elif isinstance(value, list | tuple):
            yield tuple(keys(value, inputs))
        else:
            raise NotToRememberError


def made_of(result: Any, inputs: Sequence[Tensor]) -> Made:
    """Return how results can be made anew.

    Raises:
        NotToRememberError: they cannot: they share memory, or are no tensors.
    """
    if isinstance(result, tuple | list):
        parts = tuple(_part(each, inputs) for each in result)
        storages = [
            each.untyped_storage()._cdata  # noqa: SLF001 - the one identity a storage has
            for each, part in zip(result, parts, strict=True)
            if isinstance(part, New)
        ]
        if len(set(storages)) < len(storages):
            raise NotToRememberError
        return Made(parts, type(result))
    return Made((_part(result, inputs),), None)


def _part(result: Any, inputs: Sequence[Tensor]) -> Part:
    if result is None:
        return None
    if type(result) is not FakeTensor or result.constant is not None:
        raise NotToRememberError
    storage = result.untyped_storage()
    for number, each in enumerate(inputs):
        if each is result:
            return Same(number)
        if each.untyped_storage()._cdata == storage._cdata:  # noqa: SLF001 - the same
            return View(number, tuple(result.shape), result.stride(), int(result.storage_offset()), result.dtype)
    dense = (
        sum((n - 1) * s for n, s in zip(result.shape, result.stride(), strict=True)) + 1 if result.numel() else 0
    )
    if storage.nbytes() != dense * result.itemsize or result.storage_offset():
        raise NotToRememberError  # it is a part of more memory than it shows
    return New(tuple(result.shape), result.stride(), result.dtype, result.fake_device)
