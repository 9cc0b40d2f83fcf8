"""Residency: how many blocks stay on the device, by what a card has left beside a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_loraperf.backends.streaming.stream import SLOTS, Block, Stream, spread

SLACK = 1.0
"""Of what a pass takes, as much again is left free: memory is given out in pieces, and not twice in the same ones.
On an H100 the allocator reserved up to 430 MB beyond 540 MB that a pass of the full-size model takes."""


class Residency:
    """Lets as many blocks of one stack stay as a card has room for.

    What a pass through the stack takes besides weights depends on the request: image size, batch, cfg. So the
    first pass with larger inputs than any before runs with one block at a time, and is looked at. What counts are
    live tensors: what the allocator reserves beyond them differs from run to run, and with it the speed would.
    """

    def __init__(self, stream: Stream, stack: Sequence[Block], limit: int, fixed: int) -> None:
        """Take the card's size and what is on it whatever comes, both in bytes."""
        self._stream = stream
        self._stack = stack
        self._room = limit - stream.copies.overhead - fixed
        self._largest = 0
        self._before: int | None = None
        self._most = 0

    def begin(self, size: int) -> None:
        """Note that a pass begins, with inputs of so many elements."""
        copies = self._stream.copies
        if size > self._largest:
            self._largest = size
            self._stream.keep(())
            self._stream.use(1)
            copies.trim()
            self._stream.prepare()
            self._before = self._most = copies.allocated()
        elif self._before is not None:
            self._settle(self._most - self._before)
            self._before = None

    def looking(self) -> AbstractContextManager[object]:
        """Return a context in which each operation shows what is on the device, if this pass is looked at."""
        return nullcontext() if self._before is None else _AfterEach(self.look)

    def look(self) -> None:
        """See what is on the device now."""
        self._most = max(self._most, self._stream.copies.allocated())

    def _settle(self, taken: int) -> None:
        grain = self._stream.copies.grain
        each = max(-(-block.packed.size // grain) * grain for block in self._stack)
        room = self._room - taken - int(taken * SLACK)
        total = len(self._stack)
        alone = len(self._stream.stacks) == 1
        # Where all stay, nothing needs the slots.
        if alone and room >= total * each:
            count = total
        else:
            slot = self._stream.slot_size
            slots = min(max(1, room // slot), SLOTS)
            self._stream.use(slots)
            count = min(max(0, (room - slots * slot) // each), total)
        self._stream.keep([self._stack[index] for index in spread(count, total)])


class Watched:
    """A block whose calls a residency looks at: the first of its stack, since the others are like it."""

    def __init__(self, block: nn.Module, residency: Residency) -> None:
        self._block = block
        self._own = vars(block).get("forward")
        forward = block.forward

        def looked_at(*args: Any, **kwargs: Any) -> Any:
            with residency.looking():
                return forward(*args, **kwargs)

        block.forward = looked_at

    def stop(self) -> None:
        """Let the block be as it was."""
        if self._own is None:
            del self._block.forward
        else:
            self._block.forward = self._own


class _AfterEach(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Calls a function after each operation."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._look = look

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._look()
        return result
