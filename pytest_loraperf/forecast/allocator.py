"""torch's caching allocator of CUDA memory, without CUDA: what a series of allocations and frees reserves.

The constants and the rules are those of ``c10/core/AllocatorConfig.h`` and ``c10/cuda/CUDACachingAllocator.cpp``
in their default configuration: one stream, no expandable segments, no limit on splitting.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIN_BLOCK = 512
"""Bytes; all sizes are rounded up to a multiple (kMinBlockSize)."""
SMALL = 2**20
"""Bytes; the largest request that is served from small segments (kSmallSize)."""
SMALL_SEGMENT = 2 * 2**20
"""Bytes of a segment that small requests share (kSmallBuffer)."""
MIN_LARGE = 10 * 2**20
"""Bytes; from here on a request that finds no free block gets a segment of its own (kMinLargeAlloc)."""
LARGE_SEGMENT = 20 * 2**20
"""Bytes of a segment for requests between ``SMALL`` and ``MIN_LARGE`` (kLargeBuffer)."""
ROUND_LARGE = 2 * 2**20
"""Bytes; segments of their own are rounded up to a multiple (kRoundLarge)."""


def rounded(size: int) -> int:
    """Return the bytes of the block that a request takes at least (``round_size``)."""
    return max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)


def segment_size(size: int) -> int:
    """Return the bytes of the new segment for a rounded request (``get_allocation_size``)."""
    if size <= SMALL:
        return SMALL_SEGMENT
    if size < MIN_LARGE:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE


@dataclass(eq=False)
class Block:
    """A piece of a segment; ``before`` and ``after`` are its neighbours there."""

    size: int
    address: int
    small: bool
    free: bool = False
    before: Block | None = None
    after: Block | None = None

    @property
    def split(self) -> bool:
        """Whether the segment has other blocks too."""
        return self.before is not None or self.after is not None


@dataclass
class _Pool:
    """Free blocks, ordered by size and then by address."""

    blocks: dict[tuple[int, int], Block] = field(default_factory=dict)
    order: list[tuple[int, int]] = field(default_factory=list)

    def add(self, block: Block) -> None:
        key = (block.size, block.address)
        self.blocks[key] = block
        insort(self.order, key)

    def remove(self, block: Block) -> None:
        key = (block.size, block.address)
        del self.blocks[key]
        del self.order[bisect_left(self.order, key)]

    def best_fit(self, size: int) -> Block | None:
        """Return the smallest block that is large enough, at the lowest address of those."""
        at = bisect_left(self.order, (size, -1))
        return self.blocks[self.order[at]] if at < len(self.order) else None


class CachingAllocator:
    """What torch would have allocated and reserved; all in bytes."""

    def __init__(self) -> None:
        self.allocated = self.reserved = 0
        self.allocated_peak = self.reserved_peak = 0
        self._pools = {True: _Pool(), False: _Pool()}
        self._next_address = 0

    def allocate(self, size: int) -> Block | None:
        """Take a block for ``size`` bytes; nothing needs none."""
        if size == 0:
            return None
        size = rounded(size)
        small = size <= SMALL
        block = self._pools[small].best_fit(size)
        if block is None:
            block = self._new_segment(size, small)
        else:
            self._pools[small].remove(block)
        if self._worth_splitting(block, size):
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return block

    def free(self, block: Block | None) -> None:
        """Give a block back to its segment, joined with its free neighbours."""
        if block is None:
            return
        self.allocated -= block.size
        pool = self._pools[block.small]
        before, after = block.before, block.after
        if before is not None and before.free:
            pool.remove(before)
            block.address, block.size = before.address, block.size + before.size
            block.before = before.before
            if block.before is not None:
                block.before.after = block
        if after is not None and after.free:
            pool.remove(after)
            block.size += after.size
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        block.free = True
        pool.add(block)

    def empty_cache(self) -> None:
        """Give back the segments that are free as a whole."""
        for pool in self._pools.values():
            for block in [block for block in pool.blocks.values() if not block.split]:
                pool.remove(block)
                self.reserved -= block.size

    def reset_peaks(self) -> None:
        """Let the peaks start from what is held now."""
        self.allocated_peak, self.reserved_peak = self.allocated, self.reserved

    def _new_segment(self, size: int, small: bool) -> Block:
        whole = segment_size(size)
        block = Block(whole, self._next_address, small)
        self._next_address += whole
        self.reserved += whole
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return block

    def _worth_splitting(self, block: Block, size: int) -> bool:
        """Whether the rest becomes a block of its own (``should_split``)."""
        rest = block.size - size
        return rest >= MIN_BLOCK if block.small else rest > SMALL

    def _split(self, block: Block, size: int) -> None:
        rest = Block(
            block.size - size, block.address + size, block.small, free=True, before=block, after=block.after
        )
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        self._pools[block.small].add(rest)
