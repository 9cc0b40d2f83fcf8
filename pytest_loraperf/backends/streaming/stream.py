"""The stream: blocks come to the device in the order in which they are called, ahead of the call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pytest_loraperf.backends.streaming.copies import Copies, Mark
from pytest_loraperf.backends.streaming.packing import Packed
from pytest_loraperf.errors import LoraperfError

SLOTS = 3
"""Blocks on the device at a time that do not stay: one computes while the next arrives, and with one more the
bus is not idle while blocks that stay are computed. Where a card has no room for all, there are fewer; of one
alone, the next arrives once it is done."""


@dataclass(eq=False)
class Block:
    """A block and where it is: ``views`` are its tensors on the device, None while it is in host memory alone.

    ``order`` are the blocks of its stack, ``position`` its own among them. One to be ``kept`` gets bytes of its
    own, and stays; the others share slots.
    """

    packed: Packed
    order: Sequence[Block] = ()
    position: int = 0
    kept: bool = False
    slot: Slot | None = None
    views: list[Tensor] | None = None
    ready: Mark = None

    def ahead(self) -> Iterator[Block]:
        """Yield the others of its stack in the order of their next call; the first one follows the last."""
        count = len(self.order)
        return (self.order[(self.position + step) % count] for step in range(1, count))

    def until(self, other: Block) -> float:
        """Return how many calls from this block's to the other's next one, endless if it is of another stack."""
        if other.order is not self.order:
            return float("inf")
        return (other.position - self.position - 1) % len(self.order) + 1


@dataclass(eq=False)
class Slot:
    """Bytes on the device that blocks take turns in; ``free`` is when the last call with them is done."""

    bytes: Tensor
    block: Block | None = None
    free: Mark = None
    views: dict[Block, list[Tensor]] = field(default_factory=dict)

    def views_of(self, block: Block) -> list[Tensor]:
        """Return the block's tensors in these bytes, made once."""
        if block not in self.views:
            self.views[block] = block.packed.views(self.bytes)
        return self.views[block]


class Stream:
    """Brings blocks to a device when they are called, and those that come next while they compute.

    A block's tensors are on the device from when it is on its way there until another takes its slot; otherwise
    they are in host memory. Whatever order blocks are called in, the result is right: the order that they are
    expected in only decides what is fetched ahead.
    """

    def __init__(self, stacks: Sequence[Sequence[Packed]], copies: Copies, slots: int = SLOTS) -> None:
        self.copies = copies
        self.stacks = [[Block(packed) for packed in stack] for stack in stacks]
        for stack in self.stacks:
            for position, block in enumerate(stack):
                block.order, block.position = stack, position
        self.moved = 0
        self._count = slots
        self._slots: list[Slot] = []
        self._running: Block | None = None
        self._process = os.getpid()

    @property
    def blocks(self) -> list[Block]:
        """All blocks of all stacks."""
        return [block for stack in self.stacks for block in stack]

    @property
    def slot_size(self) -> int:
        """Bytes that a slot takes on the device."""
        return max((block.packed.size for block in self.blocks), default=0)

    def enter(self, block: Block) -> None:
        """Have a block on the device for the call that begins.

        Raises:
            LoraperfError: this process was forked from the one that has the device.
        """
        if os.getpid() != self._process and not self.copies.forked:
            raise LoraperfError(
                f"offload[stream]: process {os.getpid()} was forked from {self._process} and cannot use its GPU; "
                "start processes by spawn (multiprocessing.set_start_method), or build the pipeline in this one"
            )
        if self._running not in {None, block}:  # its call raised
            self.leave(self._running)
        if block.views is None:
            self._fetch(block, self._victim(block, 0))
        self.copies.wait(block.ready)
        self._running = block

    def leave(self, block: Block) -> None:
        """Note that a block was called, and fetch those that come next into what is free now."""
        self._running = None
        if block.slot is not None:
            block.slot.free = self.copies.mark()
        fetched = 0
        for coming in block.ahead():
            if coming.views is not None:
                continue
            slot = self._victim(block, block.until(coming))
            if fetched == self._count or (slot is None and not coming.kept):
                return
            self._fetch(coming, slot)
            fetched += 1

    def keep(self, blocks: Sequence[Block]) -> None:
        """Let these blocks stay on the device once they are there, and no others."""
        for block in self.blocks:
            if block.kept and block not in blocks:
                self._drop(block)
            block.kept = block in blocks
            if block.kept and block.slot is not None:
                self._drop(block)  # it gets bytes of its own when it comes again
        if all(block.kept for block in self.blocks):
            self._clear_slots()

    def prepare(self) -> None:
        """Have the slots, unless every block stays."""
        if not self._slots and not all(block.kept for block in self.blocks):
            self._slots = [Slot(self.copies.buffer(self.slot_size)) for _ in range(self._count)]

    def use(self, slots: int) -> None:
        """Have so many slots from now on."""
        if slots != self._count:
            self._clear_slots()
            self._count = slots

    def drop_kept(self) -> None:
        """Make room: the blocks that stay leave the device until they are called again."""
        for block in self.blocks:
            if block.kept:
                self._drop(block)
        self.copies.trim()

    def release(self) -> None:
        """Leave the device: all tensors are in host memory until a block is called again."""
        self._running = None
        for block in self.blocks:
            self._drop(block)
        self._slots.clear()
        self.copies.trim()

    def _clear_slots(self) -> None:
        for slot in self._slots:
            if slot.block is not None:
                self._drop(slot.block)
        self.copies.retire()
        self._slots.clear()

    def _victim(self, current: Block, sooner: float) -> Slot | None:
        """Return the slot whose block is called last from here, None if that is sooner than wanted.

        The one that is called now is called again after all others.
        """
        self.prepare()

        def wait(slot: Slot) -> float:
            return float("inf") if slot.block is None else current.until(slot.block)

        slot = max(self._slots, key=wait, default=None)
        return slot if slot is not None and wait(slot) > sooner else None

    def _fetch(self, block: Block, slot: Slot | None) -> None:
        size = block.packed.size
        if block.kept or slot is None:
            target, after, views = self.copies.buffer(size), None, None
        else:
            if slot.block is not None:
                self._drop(slot.block)
            slot.block, block.slot = block, slot
            target, after, views = slot.bytes[:size], slot.free, slot.views_of(block)
        block.ready = self.copies.load(block.packed.host, target, after)
        block.views = views or block.packed.views(target)
        block.packed.point_at(block.views)
        self.moved += size

    def _drop(self, block: Block) -> None:
        """Let a block be in host memory alone."""
        if block.views is None:
            return
        block.packed.point_at(block.packed.at_home)
        if block.slot is not None:
            block.slot.block = None
            block.slot = None
        else:
            self.copies.retire()
        block.views = block.ready = None


def spread(count: int, total: int) -> list[int]:
    """Return so many of the numbers from 0 up to the total, as evenly as can be."""
    return [index for index in range(total) if (index + 1) * count // total > index * count // total]
