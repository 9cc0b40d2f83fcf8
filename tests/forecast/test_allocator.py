"""The simulated caching allocator: its rules by example, and what must hold of any series of requests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.forecast.allocator import MIN_BLOCK, Block, CachingAllocator, rounded

MIB = 2**20


def allocate(allocator: CachingAllocator, size: int) -> Block:
    block = allocator.allocate(size)
    assert block is not None
    return block


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # what is left is too little to be a block of its own
        (13 * MIB - 512, 13 * MIB - 512, 14 * MIB),
    ],
)
def test_one_request(size: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate(size)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_nothing_takes_nothing() -> None:
    allocator = CachingAllocator()
    block = allocator.allocate(0)
    allocator.free(block)
    assert (allocator.allocated, allocator.reserved) == (0, 0)


def test_a_segment_is_shared_until_it_is_full() -> None:
    allocator = CachingAllocator()
    for _ in range(2):
        allocate(allocator, 9 * MIB)
    assert allocator.reserved == 20 * MIB
    allocate(allocator, 9 * MIB)
    assert allocator.reserved == 40 * MIB


def test_the_smallest_free_block_that_fits_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocate(allocator, 100 * MIB), allocate(allocator, 40 * MIB)
    place = small.address
    allocator.free(large)
    allocator.free(small)
    assert allocate(allocator, 30 * MIB).address == place


def test_free_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    allocator.free(allocate(allocator, 60 * MIB))
    blocks = [allocate(allocator, 20 * MIB) for _ in range(3)]
    for block in (blocks[0], blocks[2], blocks[1]):
        allocator.free(block)
    allocate(allocator, 60 * MIB)
    assert allocator.reserved == 60 * MIB


def test_a_segment_in_part_in_use_is_not_given_back() -> None:
    allocator = CachingAllocator()
    first, second = allocate(allocator, 5 * MIB), allocate(allocator, 5 * MIB)
    allocator.free(first)
    allocator.empty_cache()
    assert (allocator.allocated, allocator.reserved) == (5 * MIB, 20 * MIB)
    allocator.free(second)
    assert allocator.reserved == 20 * MIB
    allocator.empty_cache()
    assert allocator.reserved == 0


def test_peaks_start_anew() -> None:
    allocator = CachingAllocator()
    allocator.free(allocate(allocator, 100 * MIB))
    assert (allocator.allocated_peak, allocator.reserved_peak) == (100 * MIB, 100 * MIB)
    allocator.empty_cache()
    allocator.reset_peaks()
    assert (allocator.allocated_peak, allocator.reserved_peak) == (0, 0)


@dataclass(frozen=True)
class Take:
    size: int


@dataclass(frozen=True)
class Give:
    which: int


SIZES = st.one_of(st.integers(0, 3 * MIB), st.integers(0, 64 * MIB), st.integers(0, 3 * 2**30))
ACTIONS = st.lists(st.one_of(SIZES.map(Take), st.integers(0, 99).map(Give), st.none()), max_size=60)


@given(ACTIONS)
def test_any_series(actions: list[Take | Give | None]) -> None:
    allocator = CachingAllocator()
    held: list[Block] = []
    for action in actions:
        if action is None:
            allocator.empty_cache()
        elif isinstance(action, Take):
            block = allocator.allocate(action.size)
            if block is not None:
                assert block.size >= rounded(action.size)
                # A rest of a megabyte or less stays with a large block.
                assert block.size - rounded(action.size) <= (0 if block.small else MIB + MIN_BLOCK)
                held.append(block)
        elif held:
            allocator.free(held.pop(action.which % len(held)))
        assert allocator.allocated == sum(block.size for block in held) <= allocator.reserved
        assert allocator.allocated_peak >= allocator.allocated
        assert allocator.reserved_peak >= allocator.reserved
        spans = sorted((block.address, block.address + block.size) for block in held)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    for block in held:
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.allocated, allocator.reserved) == (0, 0)
