"""Counting: a generation's floating-point operations by dtype, the weights it reads, and what crosses the bus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop

from pytest_loraperf.gpu.tensors import tensors_of
from pytest_loraperf.limits import Counts

aten = torch.ops.aten
TO_COPY = aten._to_copy.default  # noqa: SLF001 - its only name
COPY = aten.copy_.default
OURS = frozenset({"aten", "prim", "prims", "profiler"})
"""The namespaces of torch's own operations."""
LIKE_PRODUCTS = frozenset(
    {
        "mm",
        "addmm",
        "bmm",
        "addbmm",
        "mv",
        "addmv",
        "dot",
        "vdot",
        "convolution",
        "attention",
        "linear",
        "lstm",
        "gru",
    }
)
"""Words in the names of torch's operations that multiply and add."""


def _vector_product(matrix: Any, vector: Any, *_: Any, **__: Any) -> int:
    """Count (m, k) by (k): the sum of k products for each of m results."""
    return 2 * int(matrix.shape[0]) * int(vector.shape[0])


def _scaled_product(left: Any, right: Any, *_: Any, **__: Any) -> int:
    """Count (m, k) by (k, n), whatever scales come with them."""
    (rows, inner), columns = left.shape, right.shape[1]
    return 2 * int(rows) * int(inner) * int(columns)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    count: int = sdpa_flop(query.shape, key.shape, value.shape)
    return count


MORE_FORMULAS: dict[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_mm_v2": _scaled_product,
    "_int_mm": _scaled_product,
    "mv": _vector_product,
}
"""Formulas of torch's operations that its own table lacks, some of which are not in every version."""


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts while it is entered by ``counting``.

    The formulas are those of torch's ``FlopCounterMode``; that adds up all dtypes, and counts nothing inside of
    wrappers such as torchao's, whose products are the fp8 ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._operations: Counter[str] = Counter()
        self._bytes = self._bus_bytes = 0
        self._not_counted: dict[str, None] = {}
        self._read: set[int] = set()

    @property
    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(
            operations=dict(self._operations),
            bytes=self._bytes,
            bus_bytes=self._bus_bytes,
            not_counted=tuple(self._not_counted),
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count in this context, in which what is compiled runs as it was written."""
        hook = register_module_forward_pre_hook(self._see_weights)
        try:
            with torch.compiler.set_stance("force_eager"), self:
                yield
        finally:
            hook.remove()

    def tick(self) -> None:
        """Begin a step: weights are read again."""
        self._read.clear()

    def _see_weights(self, module: torch.nn.Module, _: Any) -> None:
        """Count a module's own weights, once a step; of an embedding only some rows are read."""
        if isinstance(module, torch.nn.Embedding):
            return
        for tensor in tensors_of(module, recurse=False):
            # Told apart by the tensor, not by its memory: streamed weights take turns in the same.
            if id(tensor) not in self._read:
                self._read.add(id(tensor))
                self._bytes += tensor.nbytes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no: nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(is_traceable_wrapper_subclass_type(kind) for kind in types):
            return NotImplemented  # the wrapper's own operations come here one by one
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None and func.namespace != "prim":  # these have nothing to decompose into
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self._operations[_dtype(args, kwargs)] += formula(*args, **kwargs, out_val=result)
        elif func is TO_COPY:
            self._see_copy(args[0], result)
        elif func is COPY:
            self._see_copy(args[1], result)
        elif _is_product(func):
            self._not_counted[func._overloadpacket._qualified_op_name] = None  # noqa: SLF001 - an operation has no other name
        return result

    def _see_copy(self, source: Tensor, result: Tensor) -> None:
        if source.device.type == "cpu" and result.device.type != "cpu":
            # Where the dtype changes, either side may be the one that changes it.
            self._bus_bytes += min(source.nbytes, result.nbytes)


def _formula(func: Any) -> Callable[..., int] | None:
    packet = func._overloadpacket  # noqa: SLF001 - the table is by it
    if packet in flop_registry:
        found: Callable[..., int] = flop_registry[packet]
        return found
    return MORE_FORMULAS.get(packet.__name__) if func.namespace == "aten" else None


def _dtype(args: Any, kwargs: Any) -> str:
    """Return the dtype of a product: the narrowest of what goes in, since scales and sums are wider."""
    dtypes = [leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]  # a mask is none
    narrowest = min(floating or dtypes, key=lambda dtype: dtype.itemsize)
    return str(narrowest).removeprefix("torch.")


def _is_product(func: Any) -> bool:
    """Whether an operation without a formula may well multiply: another package's own, or one by its name."""
    name = func._overloadpacket.__name__  # noqa: SLF001 - the same
    return func.namespace not in OURS or not LIKE_PRODUCTS.isdisjoint(name.split("_"))
