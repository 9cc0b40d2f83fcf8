"""Counting memory: each storage of a fake tensor on CUDA is a block of the caching allocator while it lives."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _DisableTorchDispatch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves

from pytest_loraperf.forecast.allocator import Block, CachingAllocator
from pytest_loraperf.forecast.fusion import Fusion
from pytest_loraperf.forecast.known import KnownValues
from pytest_loraperf.forecast.remembered import Remembered
from pytest_loraperf.forecast.unknown import UnknownOperationError

aten = torch.ops.aten
PRODUCTS = frozenset(
    {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten._scaled_mm.default}  # noqa: SLF001 - its only name
)
"""The operations that cuBLAS carries out."""
DEVICE = torch.ops.prim.device.default
INDEX = aten.index.Tensor
PLAIN_TYPES = (FakeTensor,)
CANNOT = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NotImplementedError,
)


class Allocation(NamedTuple):
    """So many bytes."""

    size: int


class Free(NamedTuple):
    """The memory of the allocation that is the event of this number."""

    of: int


@dataclass
class Recording:
    """What is allocated and freed while it lasts.

    ``events`` are bytes allocated, or an earlier event whose memory is freed; ``living`` has the event of each
    storage that is allocated and not freed. ``asked`` is set where the code asks how much is in use.
    """

    events: list[Allocation | Free] = field(default_factory=list)
    living: dict[int, int] = field(default_factory=dict)
    asked: bool = False

    def allocated(self, key: int, size: int) -> None:
        """Note an allocation for a storage."""
        self.living[key] = len(self.events)
        self.events.append(Allocation(size))

    def freed(self, key: int) -> None:
        """Note that a storage is freed, if it was allocated since the beginning."""
        if key in self.living:
            self.events.append(Free(self.living.pop(key)))


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Follows every operation: what it allocates on CUDA, and the values of what is small.

    ``workspace`` is the bytes that cuBLAS takes at its first product and keeps.
    """

    def __init__(self, fake: FakeTensorMode, allocator: CachingAllocator, workspace: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.carry_out = Remembered(fake)
        self.allocator = allocator
        self.known = KnownValues()
        self.recording: Recording | None = None
        self._workspace = workspace
        self.fusion = Fusion(self._give_memory)
        self._blocks: dict[int, tuple[int, Block | None]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no: nothing is compiled here, and torch's guard against it takes time at each operation."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device
        if types != PLAIN_TYPES and any(
            kind is not FakeTensor and is_traceable_wrapper_subclass_type(kind) for kind in types
        ):
            return NotImplemented  # the wrapper's own operations come here one by one
        kwargs = kwargs or {}
        if func is INDEX:
            args = args[0], [place for each in args[1] for place in self._places(each)]
        if self._workspace and func in PRODUCTS and args[0].device.type == "cuda":
            self.allocator.allocate(self._workspace)
            self._workspace = 0
        held_back = self.fusion.holds_back(func, args, kwargs)
        result = self._result(func, args, kwargs)
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.fake_device.type == "cuda":
                key = self._see(leaf, held_back=held_back)
                if key is not None and held_back:
                    self.fusion.hold_back(key, args, kwargs)
        return result

    def _result(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        try:
            result = self.carry_out(func, args, kwargs)
        except CANNOT as error:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if not (inputs and self.known.known(inputs)):
                raise UnknownOperationError(str(func), error) from error
            return self._from_values(inputs[0], self.known.run(func, args, kwargs))
        self.known.follow(func, args, kwargs, result)
        return result

    def _places(self, index: Tensor | None) -> list[Tensor | None]:
        """Return where a mask is true, as CUDA looks for it before it picks; other indices as they are."""
        real = None if index is None or index.dtype is not torch.bool else self.known.of(index)
        if index is None or real is None:
            return [index]
        with _DisableTorchDispatch():
            places = real.nonzero(as_tuple=True)
        return [self._from_values(index, each) for each in places]

    def _from_values(self, near: Tensor, real: Any) -> Any:
        """Return a fake tensor on the device of ``near`` with the values; what is no tensor as it is."""
        if not isinstance(real, Tensor):
            return real
        fake = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=near.device)
        self.known.keep(fake, real)
        return fake

    def _see(self, tensor: Tensor, *, held_back: bool) -> int | None:
        """Count the storage of a tensor until it is freed; return its key if it is a new one."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata  # noqa: SLF001 - the one identity a storage has
        size = storage.nbytes()
        found = self._blocks.get(key)
        if found is not None:
            if found[0] != size:  # it was resized
                self._free(key, found[1])
                self._blocks[key] = size, self._allocate(key, size)
            return None
        self.adopt(storage, None if held_back else self._allocate(key, size))
        return key

    def adopt(self, storage: torch.UntypedStorage, block: Block | None) -> None:
        """Let a storage have this block until it is freed."""
        key = storage._cdata  # noqa: SLF001 - the one identity a storage has
        weakref.finalize(storage, self._forget, key).atexit = False
        self._blocks[key] = storage.nbytes(), block

    def _allocate(self, key: int, size: int) -> Block | None:
        if self.recording is not None:
            self.recording.allocated(key, size)
        return self.allocator.allocate(size)

    def _free(self, key: int, block: Block | None) -> None:
        if self.recording is not None:
            self.recording.freed(key)
        self.allocator.free(block)

    def _give_memory(self, key: int) -> None:
        size, _ = self._blocks[key]
        self._blocks[key] = size, self._allocate(key, size)

    def _forget(self, key: int) -> None:
        self._free(key, self._blocks.pop(key)[1])
        self.fusion.forget(key)
