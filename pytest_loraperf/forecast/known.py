"""Values of small tensors, kept beside fake ones: schedules, masks and lengths decide what comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

MOST = 2**14
"""Elements of the largest tensor whose values are kept; images and activations have more."""


class KnownValues:
    """Real tensors on the CPU that stand behind fake ones, found by running each small operation for real too."""

    def __init__(self) -> None:
        self._behind: Any = WeakTensorKeyDictionary()
        self._stale: set[int] = set()

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a fake tensor, or None where they are not known; a real one has its own."""
        if not isinstance(tensor, FakeTensor):
            return tensor
        real: Tensor | None = self._behind.get(tensor)
        if real is None or real.untyped_storage()._cdata in self._stale:  # noqa: SLF001 - the one identity a storage has
            return None
        return real

    def follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: object) -> None:
        """Run an operation on the values of its inputs, and keep those of its small results."""
        outputs = [result] if isinstance(result, Tensor) else _tensors(result)
        small = bool(outputs) and all(output.numel() <= MOST for output in outputs)
        if small and self._can_run(func, _tensors((args, kwargs))):
            real = self.run(func, args, kwargs)
            for fake, value in zip(outputs, _tensors(real), strict=True):
                self.keep(fake, value)
        elif func._schema.is_mutable:  # noqa: SLF001 - an operation has no other name for it
            self._forget(func, args, kwargs)

    def keep(self, fake: Tensor, real: Tensor) -> None:
        """Keep the values of a fake tensor."""
        self._behind[fake] = real

    def known(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the values of all these are known."""
        return all(self.of(each) is not None for each in inputs)

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation on the values that stand behind its arguments, on the CPU."""
        with _DisableTorchDispatch():
            return func(*tree_map(self._real, tuple(args)), **tree_map(self._real, kwargs))

    def _can_run(self, func: Any, inputs: Sequence[Tensor]) -> bool:
        return torch.Tag.nondeterministic_seeded not in func.tags and _fills(func, inputs) and self.known(inputs)

    def _real(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return self.of(leaf)
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    def _forget(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """What is written with unknown values is unknown, and so is all that shares its memory."""
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs  # noqa: SLF001 - the same
        for argument in func._schema.arguments:  # noqa: SLF001 - the same
            if argument.alias_info is not None and argument.alias_info.is_write:
                for leaf in _tensors(named.get(argument.name)):
                    real = self._behind.get(leaf)
                    if real is not None:
                        self._stale.add(real.untyped_storage()._cdata)  # noqa: SLF001 - the same


def _fills(func: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Whether the results have values: memory that nobody wrote to has none."""
    return bool(inputs) or "empty" not in str(func)


def _tensors(tree: object) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries; pytree does the same in four times the time."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [leaf for each in tree for leaf in _tensors(each)] if isinstance(tree, list | tuple) else []
