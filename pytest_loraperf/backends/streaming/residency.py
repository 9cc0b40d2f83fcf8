"""Residency: how many blocks stay on the device, by what a card has left beside a call."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_loraperf.backends.streaming.stream import Block, Stream, spread

SLACK = 16
"""A sixteenth of what a call takes is left free: memory is given out in pieces, and not twice in the same ones."""


class Residency:
    """Lets as many blocks of one stack stay as a card has room for.

    What a pass through the stack takes besides weights depends on the request: image size, batch, cfg. So the
    first pass with larger inputs than any before runs with no block that stays, and shows what it takes.
    """

    def __init__(self, stream: Stream, stack: Sequence[Block], limit: int, fixed: int) -> None:
        """Take the card's size and what is on it whatever comes, both in bytes."""
        self._stream = stream
        self._stack = stack
        self._room = limit - stream.copies.overhead - fixed
        self._largest = 0
        self._before: int | None = None

    def begin(self, size: int) -> None:
        """Note that a pass begins, with inputs of so many elements."""
        copies = self._stream.copies
        if size > self._largest:
            self._largest = size
            self._stream.keep(())
            copies.trim()
            self._stream.prepare()
            self._before = copies.reserved()
        elif self._before is not None:
            self._settle(copies.reserved() - self._before)
            self._before = None

    def _settle(self, taken: int) -> None:
        grain = self._stream.copies.grain
        each = max(-(-block.packed.size // grain) * grain for block in self._stack)
        room = self._room - taken - taken // SLACK
        total = len(self._stack)
        alone = len(self._stream.stacks) == 1
        # Where all stay, nothing needs the slots.
        if alone and room >= total * each:
            count = total
        else:
            count = min(max(0, (room - self._stream.slots_size) // each), total)
        self._stream.keep([self._stack[index] for index in spread(count, total)])
