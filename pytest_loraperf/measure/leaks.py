"""What tests leave behind on the device: how much, and what holds it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any

import torch

from pytest_loraperf.measure.ledger import Ledger

SHOWN = 3
LOOKED_AT = 200
"""Objects that are looked at on the way from a tensor to what holds it."""


@dataclass(frozen=True)
class Leak:
    """Bytes that a test left behind, and what holds them: a name and its bytes, the largest first."""

    size: int
    holders: tuple[tuple[str, int], ...] = ()


@dataclass
class Leaks:
    """Live tensors that no pipeline of ours and no fixture of a wider scope accounts for.

    What was there before the first test belongs to the suite; what a test adds to it is left behind by that test.
    ``left`` has what is still there, by test. ``kept`` is what fixtures hold that live on, by fixture.
    """

    ledger: Ledger
    left: dict[str, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    _start: int = 0
    _known: frozenset[int] | None = None

    def begin(self, *, closely: bool) -> None:
        """Look before a test; ``closely`` looks at each tensor, so that what holds the new ones can be told."""
        self._settle()
        self._start = self._unaccounted()
        self._known = frozenset(map(_storage, self._tensors())) if closely else None
        self.ledger.left = sum(self.left.values())

    def end(self, test: str) -> Leak:
        """Look after a test: once with the young garbage collected, and where something stays with all of it."""
        gc.collect(1)
        self._settle()
        if self._unaccounted() > self._start:
            gc.collect()
        grown = self._unaccounted() - self._start
        if grown < 0:
            self._forget(-grown)
        if grown <= 0:
            return Leak(0)
        self.left[test] = grown
        return Leak(grown, tuple(self._holders()))

    def held_by_fixture(self, key: int, size: int) -> None:
        """Note what a fixture holds that lives on after this test."""
        self.kept[key] = size

    def let_go(self, key: int) -> None:
        """Note that a fixture is finished: what it still holds is left behind."""
        self.kept.pop(key, None)

    def level(self) -> int:
        """Bytes of live tensors."""
        return self.ledger.meter.allocated()

    def _settle(self) -> None:
        """Give back the workspaces of cuBLAS, tens of MB that torch counts as live."""
        if self._on_cuda:
            torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch's own leak check does so

    @property
    def _on_cuda(self) -> bool:
        return self.ledger.meter.kind == "VRAM"

    def _unaccounted(self) -> int:
        return self.level() - self.ledger.live - sum(self.kept.values())

    def _forget(self, size: int) -> None:
        for test in reversed(tuple(self.left)):
            gone = min(size, self.left[test])
            self.left[test] -= gone
            size -= gone
            if not self.left[test]:
                del self.left[test]

    def _tensors(self) -> Iterator[torch.Tensor]:
        for each in gc.get_objects():
            # isinstance would ask some lazy objects for their class, and they warn.
            if issubclass(type(each), torch.Tensor) and each.is_cuda == self._on_cuda and _storage(each):
                yield each

    def _holders(self) -> Iterator[tuple[str, int]]:
        sizes: dict[str, dict[int, int]] = {}
        for tensor in self._tensors():
            key = _storage(tensor)
            if self._known is not None and key not in self._known:
                sizes.setdefault(holder_of(tensor), {})[key] = tensor.untyped_storage().nbytes()
        totals = {name: sum(each.values()) for name, each in sizes.items()}
        yield from sorted(totals.items(), key=lambda pair: -pair[1])[:SHOWN]


def _storage(tensor: torch.Tensor) -> int:
    """Return the identity of a tensor's storage; 0 where it has none of its own."""
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - the one identity a storage has
    except (NotImplementedError, RuntimeError):
        return 0


def holder_of(value: object) -> str:
    """Name what holds an object: a module's global, a class, a frame, or else the kind of what does."""
    loaded: dict[str, object] = {**sys.modules}  # someone may have put anything there
    modules = {id(vars(module)): name for name, module in loaded.items() if isinstance(module, ModuleType)}
    looked, queue = {id(value)}, [value]
    nearest = ""
    while queue and len(looked) < LOOKED_AT:
        held = queue.pop(0)
        for holder in gc.get_referrers(held):
            if id(holder) in looked or holder is queue or holder is looked:
                continue
            looked.add(id(holder))
            if id(holder) in modules:
                return f"{modules[id(holder)]}.{_name_in(holder, held)}"
            if isinstance(holder, FrameType):
                if holder.f_globals is not globals():
                    return f"the frame of {holder.f_code.co_name} ({holder.f_code.co_filename}:{holder.f_lineno})"
                continue
            nearest = nearest or f"a {type(holder).__name__}"
            queue.append(holder)
    return nearest or "nothing that Python sees"


def _name_in(names: Any, value: object) -> str:
    return next((str(name) for name, each in list(names.items()) if each is value), "?")
