"""What tests leave behind on the device: how much, and what holds it."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakSet

import torch

from pytest_loraperf.measure.ledger import Ledger

SHOWN = 3
LEVELS = 12
"""How far from a tensor is looked for what holds it."""
NOTHING = "nothing that Python sees"


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
    What is known is held weakly: an address would be that of the next tensor once its own is freed.
    """

    ledger: Ledger
    left: dict[str, int] = field(default_factory=dict)
    kept: dict[object, int] = field(default_factory=dict)
    _start: int = 0
    _known: WeakSet[torch.UntypedStorage] | None = None

    def begin(self, *, closely: bool) -> None:
        """Look before a test; ``closely`` looks at each tensor, so that what holds the new ones can be told."""
        self._settle()
        self._start = self._unaccounted()
        self._known = WeakSet(storage for _, storage in self._tensors()) if closely else None
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

    def held_by_fixture(self, fixture: object, size: int) -> None:
        """Note what a fixture holds that lives on after this test."""
        self.kept[fixture] = size

    def let_go(self, fixture: object) -> None:
        """Note that a fixture is finished: what it still holds is left behind."""
        self.kept.pop(fixture, None)

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

    def _tensors(self) -> Iterator[tuple[torch.Tensor, torch.UntypedStorage]]:
        for each in gc.get_objects():
            # isinstance would ask some lazy objects for their class, and they warn.
            if not issubclass(type(each), torch.Tensor) or each.is_cuda != self._on_cuda:
                continue
            storage = _storage(each)
            if storage is not None:
                yield each, storage

    def _holders(self) -> Iterator[tuple[str, int]]:
        if self._known is None:
            return
        new = [tensor for tensor, storage in self._tensors() if storage not in self._known]
        holders: dict[torch.UntypedStorage, str] = {}
        for tensor, holder in zip(new, holders_of(new), strict=True):
            # A view may be held where its base is not.
            if holders.get(tensor.untyped_storage(), NOTHING) == NOTHING:
                holders[tensor.untyped_storage()] = holder
        totals: Counter[str] = Counter()
        for storage, holder in holders.items():
            totals[holder] += storage.nbytes()
        yield from totals.most_common(SHOWN)


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """Return a tensor's storage, the same object as long as it lives; None where it has none of its own."""
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    return storage if storage._cdata else None  # noqa: SLF001 - freed under it where 0


def holders_of(values: Sequence[object]) -> list[str]:
    """Name what holds each object: a module's global, a class, a frame, or else the kind of what does.

    All of them are followed at once, a level in each look at everything that Python has.
    """
    loaded: dict[str, object] = {**sys.modules}  # someone may have put anything there
    modules = {id(vars(module)): name for name, module in loaded.items() if isinstance(module, ModuleType)}
    found: dict[int, str] = {}
    nearest: dict[int, str] = {}
    level = {id(value): {index} for index, value in enumerate(values)}
    alive: list[object] = []  # what is told apart by its address must not give that to another
    ours = {id(values), id(level), id(alive)}
    seen = set(level)
    for _ in range(LEVELS):
        above: dict[int, set[int]] = {}
        for holder, held, roots in _holding(level, found):
            if id(holder) in seen or id(holder) in ours or _is_ours(holder):
                continue
            name = None
            if id(holder) in modules:
                name = f"{modules[id(holder)]}.{_name_in(holder, held)}"
            elif isinstance(holder, FrameType):
                name = f"the frame of {holder.f_code.co_name} ({holder.f_code.co_filename}:{holder.f_lineno})"
            for root in roots:
                if name is not None:
                    found.setdefault(root, name)
                else:
                    nearest.setdefault(root, f"a {type(holder).__name__}")
                    above.setdefault(id(holder), set()).add(root)
                    alive.append(holder)
        if not above:
            break
        seen |= set(above)
        level = above
    return [found.get(index) or nearest.get(index) or NOTHING for index in range(len(values))]


def _holding(level: dict[int, set[int]], found: dict[int, str]) -> Iterator[tuple[object, object, set[int]]]:
    """Yield what refers to one of these objects, the object, and what is looked for from there."""
    for holder in gc.get_objects():
        for held in gc.get_referents(holder):
            roots = level.get(id(held))
            if roots is not None and (left := {root for root in roots if root not in found}):
                yield holder, held, left


def _is_ours(holder: object) -> bool:
    return isinstance(holder, FrameType) and holder.f_globals is globals()


def _name_in(names: Any, value: object) -> str:
    return next((str(name) for name, each in list(names.items()) if each is value), "?")
