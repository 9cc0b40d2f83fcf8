"""What inductor's fusion saves: in a compiled block, pointwise results have no memory until a product reads them.

Nothing is compiled. A result of an operation that inductor generates code for is held back, together with what it
is computed from, and gets memory when a library's kernel reads it or when the block returns it. That is how
inductor fuses chains of pointwise operations and reductions; its smaller savings, such as reusing a buffer in
place, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
GENERATED = frozenset(
    {
        aten._to_copy.default,  # noqa: SLF001 - its only name
        aten.amax.default,
        aten.amin.default,
        aten.cat.default,
        aten.clone.default,
        aten.max.default,
        aten.max.dim,
        aten.mean.default,
        aten.mean.dim,
        aten.native_layer_norm.default,
        aten.sum.default,
        aten.sum.dim_IntList,
        aten.var_mean.correction,
    }
)
"""What inductor generates code for besides the operations that torch tags as pointwise."""


class Fusion:
    """Which storages are held back, and what each is computed from."""

    def __init__(self, allocate: Callable[[int], None]) -> None:
        self._allocate = allocate
        self._depth = 0
        self._inputs: dict[int, list[Tensor]] = {}

    @contextmanager
    def block(self) -> Iterator[None]:
        """Fuse the operations of this context."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def holds_back(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the result of an operation waits for memory; what it reads gets memory where it does not."""
        if not self._depth:
            return False
        if torch.Tag.pointwise in func.tags or func in GENERATED:
            return True
        if not func.is_view:
            self.give_memory((args, kwargs))
        return False

    def hold_back(self, key: int, args: Any, kwargs: dict[str, Any]) -> None:
        """Keep what a storage is computed from; all of that stays until it has memory."""
        self._inputs[key] = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]

    def give_memory(self, tree: Any) -> None:
        """Give memory to all tensors here that wait for it."""
        if not self._inputs:
            return
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                key = leaf.untyped_storage()._cdata  # noqa: SLF001 - the one identity a storage has
                if key in self._inputs:
                    self._allocate(key)
                    self.forget(key)

    def forget(self, key: int) -> None:
        """Let go of what a storage is computed from."""
        self._inputs.pop(key, None)
