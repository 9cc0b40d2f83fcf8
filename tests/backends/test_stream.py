"""The stream by itself: what is brought when and where to, by copies that only take notes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pytest_loraperf.backends.streaming.packing import Packed, pack, places_of
from pytest_loraperf.backends.streaming.residency import Residency
from pytest_loraperf.backends.streaming.stream import SLOTS, Block, Stream, spread
from pytest_loraperf.errors import LoraperfError

SIZE = 256


@dataclass
class Notes:
    """Copies that are done late: bytes arrive when they are waited for, in the order in which they were asked for.

    ``marks`` are counted up; ``used`` has the mark of the last computing with some bytes.
    """

    forked = False
    overhead = 0
    grain = 1
    marks: int = 0
    used: dict[int, int] = field(default_factory=dict)
    queue: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    taken: int = 0
    buffers: int = 0
    trimmed: int = 0

    def buffer(self, size: int) -> Tensor:
        self.buffers += 1
        return torch.full((size,), 255, dtype=torch.uint8)

    def load(self, source: Tensor, target: Tensor, after: int | None) -> int:
        # What still computes with these bytes must be waited for.
        assert (after or 0) >= self.used.get(target.data_ptr(), 0)
        self.loads.append(int(source[0]))
        self.marks += 1
        self.queue.append((self.marks, source, target))
        return self.marks

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def wait(self, mark: int | None) -> None:
        while self.queue and mark is not None and self.queue[0][0] <= mark:
            _, source, target = self.queue.pop(0)
            target.copy_(source)

    def retire(self) -> None:
        self.used.clear()

    def allocated(self) -> int:
        return self.taken

    def trim(self) -> None:
        self.used.clear()
        self.trimmed += 1


def blocks_of(count: int, first: int = 0) -> list[Packed]:
    """Blocks of one tensor each, all of whose bytes are the block's number."""
    made = []
    for number in range(first, first + count):
        tensor = torch.full((SIZE,), number, dtype=torch.uint8)
        made.append(pack([tensor], torch.empty(SIZE, dtype=torch.uint8)))
    return made


def make(*counts: int) -> tuple[Stream, Notes]:
    notes = Notes()
    stacks = [blocks_of(count, 10 * index) for index, count in enumerate(counts)]
    return Stream(stacks, notes), notes


def call(stream: Stream, block: Block, notes: Notes) -> None:
    """Call a block as a hook would, and compute with it: its tensor must hold its own bytes."""
    stream.enter(block)
    (tensor,) = block.packed.tensors
    assert block.views is not None
    assert tensor.data_ptr() == block.views[0].data_ptr()
    assert set(tensor.tolist()) == {int(block.packed.host[0])}
    notes.used[tensor.data_ptr()] = notes.marks + 1
    stream.leave(block)


def passes(stream: Stream, notes: Notes, count: int, stack: int = 0) -> None:
    for _ in range(count):
        for block in stream.stacks[stack]:
            call(stream, block, notes)


class TestOrder:
    def test_blocks_come_ahead_and_the_first_follows_the_last(self) -> None:
        stream, notes = make(5)
        passes(stream, notes, 2)
        assert notes.loads == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2]
        assert notes.buffers == SLOTS

    def test_a_block_is_on_its_way_before_it_is_called(self) -> None:
        stream, notes = make(5)
        stream.enter(stream.blocks[0])
        stream.leave(stream.blocks[0])
        assert notes.loads == [0, 1, 2, 3]
        assert [block.views is not None for block in stream.blocks] == [False, True, True, True, False]

    def test_whatever_fits_the_slots_is_moved_once(self) -> None:
        stream, notes = make(SLOTS)
        passes(stream, notes, 3)
        assert notes.loads == list(range(SLOTS))

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
    def test_each_pass_moves_each_block_once(self, count: int) -> None:
        stream, notes = make(count)
        passes(stream, notes, 1)
        before = len(notes.loads)
        passes(stream, notes, 4)
        assert len(notes.loads) - before == (4 * count if count > SLOTS else 0)
        assert stream.moved == len(notes.loads) * SIZE

    def test_calls_in_another_order_are_right_too(self) -> None:
        stream, notes = make(6)
        for index in (3, 0, 5, 5, 2, 1, 4, 0, 3):
            call(stream, stream.blocks[index], notes)

    def test_stacks_take_turns(self) -> None:
        stream, notes = make(4, 3)
        for stack in (1, 0, 0, 1, 0):
            passes(stream, notes, 1, stack)
        assert notes.buffers == SLOTS

    def test_a_call_that_raised_was_left_all_the_same(self) -> None:
        stream, notes = make(4)
        stream.enter(stream.blocks[0])
        notes.used[stream.blocks[0].packed.tensors[0].data_ptr()] = notes.marks + 1
        passes(stream, notes, 2)  # nobody left block 0

    def test_a_block_that_is_called_layer_by_layer_stays_until_another_is(self) -> None:
        stream, notes = make(5)
        for index in (0, 0, 0, 1, 1):
            stream.enter(stream.blocks[index])
        assert notes.loads == [0, 1, 2, 3]

    def test_with_one_slot_each_block_waits_for_the_one_before(self) -> None:
        stream, notes = make(5)
        stream.use(1)
        passes(stream, notes, 2)
        assert notes.loads == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
        assert notes.buffers == 1
        stream.use(2)
        assert stream._slots == []
        passes(stream, notes, 1)
        assert notes.buffers == 1 + 2

    def test_a_forked_process_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream, notes = make(2)
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        line = (
            f"offload[stream]: process {parent + 1} was forked from {parent} and cannot use its GPU; start processes "
            "by spawn (multiprocessing.set_start_method), or build the pipeline in this one"
        )
        with pytest.raises(LoraperfError) as caught:
            stream.enter(stream.blocks[0])
        assert str(caught.value) == line
        notes.forked = True
        stream.enter(stream.blocks[0])


class TestKept:
    def test_blocks_are_moved_once_and_the_others_as_ever(self) -> None:
        stream, notes = make(8)
        stream.keep(stream.blocks[1::2])
        passes(stream, notes, 3)
        assert [notes.loads.count(number) for number in range(8)] == [4, 1, 4, 1, 4, 1, 3, 1]
        assert notes.buffers == SLOTS + 4

    def test_all_need_no_slots(self) -> None:
        stream, notes = make(4)
        passes(stream, notes, 1)
        stream.keep(stream.blocks)
        notes.loads.clear()
        passes(stream, notes, 3)
        assert sorted(notes.loads) == [0, 1, 2, 3]
        assert stream._slots == []
        assert stream._running is None

    def test_none_after_some_gives_their_bytes_back(self) -> None:
        stream, notes = make(4)
        stream.keep(stream.blocks[:2])
        passes(stream, notes, 2)
        stream.keep(())
        passes(stream, notes, 2)
        assert all(block.slot is not None for block in stream.blocks if block.views is not None)

    def test_make_room_and_come_again(self) -> None:
        stream, notes = make(5)
        stream.keep(stream.blocks[:2])
        passes(stream, notes, 2)
        stream.drop_kept()
        assert notes.trimmed == 1
        assert [block.views for block in stream.blocks[:2]] == [None, None]
        passes(stream, notes, 1)
        assert [notes.loads.count(number) for number in range(2)] == [2, 2]

    def test_everything_released_is_in_host_memory_until_it_is_called(self) -> None:
        stream, notes = make(5)
        stream.keep(stream.blocks[:2])
        passes(stream, notes, 2)
        stream.release()
        for block in stream.blocks:
            assert block.packed.tensors[0].data_ptr() == block.packed.host.data_ptr()
        assert (stream._slots, notes.trimmed) == ([], 1)
        passes(stream, notes, 1)


@pytest.mark.parametrize(
    ("count", "total", "found"), [(0, 4, []), (1, 4, [3]), (2, 4, [1, 3]), (3, 6, [1, 3, 5]), (4, 4, [0, 1, 2, 3])]
)
def test_spread(count: int, total: int, found: Sequence[int]) -> None:
    assert spread(count, total) == found


@pytest.mark.parametrize("total", [1, 7, 60])
def test_spread_leaves_no_long_run(total: int) -> None:
    for count in range(1, total + 1):
        found = spread(count, total)
        assert len(found) == count
        gaps = [after - before for before, after in pairwise(found)]
        assert not gaps or max(gaps) - min(gaps) <= 1


class TestResidency:
    def kept(self, limit: int, taken: int = 0, fixed: int = 0, sizes: Sequence[int] = (100, 100)) -> list[int]:
        """Return the blocks that stay, by pass, on a card of so many bytes; a pass takes some of them."""
        stream, notes = make(8)
        residency = Residency(stream, stream.blocks, limit, fixed)
        self.slots: list[int] = []
        found = []
        for size in sizes:
            residency.begin(size)
            notes.taken += taken
            residency.look()
            notes.taken -= taken
            passes(stream, notes, 1)
            found.append(sum(block.kept for block in stream.blocks))
            self.slots.append(len(stream._slots))
        return found

    def test_the_first_pass_shows_what_a_call_takes(self) -> None:
        assert self.kept(limit=6 * SIZE) == [0, 3]

    def test_one_block_at_a_time_until_it_is_known_that_more_fit(self) -> None:
        assert self.kept(limit=4 * SIZE, taken=SIZE) == [0, 0]
        assert self.slots == [1, 2]
        assert self.kept(limit=4 * SIZE - 1, taken=SIZE) == [0, 0]
        assert self.slots == [1, 1]
        assert self.kept(limit=5 * SIZE, taken=SIZE) == [0, 0]
        assert self.slots == [1, 3]

    def test_none_where_there_is_room_for_the_slots_alone(self) -> None:
        assert self.kept(limit=SLOTS * SIZE) == [0, 0]
        assert self.kept(limit=0) == [0, 0]

    def test_all_once_they_fit_without_slots(self) -> None:
        assert self.kept(limit=8 * SIZE - 1) == [0, 4]
        assert self.kept(limit=8 * SIZE) == [0, 8]

    def test_what_a_call_takes_and_what_always_stays_is_left_out(self) -> None:
        assert self.kept(limit=6 * SIZE, taken=SIZE) == [0, 1]  # and as much again
        assert self.kept(limit=6 * SIZE, fixed=SIZE) == [0, 2]

    def test_larger_inputs_are_looked_at_anew_and_smaller_ones_are_not(self) -> None:
        assert self.kept(limit=6 * SIZE, sizes=(100, 100, 50, 200, 200, 100)) == [0, 3, 3, 0, 3, 3]

    def test_more_room_is_never_fewer_blocks(self) -> None:
        found = [self.kept(limit)[-1] for limit in range(0, 12 * SIZE, SIZE // 4)]
        assert found == sorted(found)
        assert (found[0], found[-1]) == (0, 8)


class TestPacking:
    def test_tensors_keep_bits_shape_strides_and_identity(self) -> None:
        generator = torch.Generator().manual_seed(0)
        plain = torch.randn(3, 5, generator=generator)
        tensors = [
            plain.clone(),
            torch.randn(4, 6, generator=generator).T,
            torch.randn(7, generator=generator).to(torch.float8_e4m3fn),
            torch.nn.Parameter(torch.randn(2, 3, generator=generator).to(torch.bfloat16), requires_grad=False),
            torch.tensor(3.0),
            torch.randn(8, 8, generator=generator)[::2, 1::3],
        ]
        before = [(t.shape, t.stride(), t.dtype, t.float().clone()) for t in tensors]
        places, size = places_of(tensors)
        assert all(place.start % 256 == 0 for place in places)
        packed = pack(tensors, torch.empty(size + 10, dtype=torch.uint8))
        assert packed.size == size
        for tensor, (shape, stride, dtype, values) in zip(tensors, before, strict=True):
            assert (tensor.shape, tensor.stride(), tensor.dtype) == (shape, stride, dtype)
            assert torch.equal(tensor.float(), values)
            assert packed.host.data_ptr() <= tensor.data_ptr() < packed.host.data_ptr() + size
        elsewhere = packed.host.clone()
        packed.point_at(packed.views(elsewhere))
        packed.host.zero_()
        assert all(torch.equal(t.float(), values) for t, (*_, values) in zip(tensors, before, strict=True))

    def test_in_the_memory_that_they_are_in_already(self) -> None:
        memory = torch.arange(2048, dtype=torch.int32).view(torch.uint8)
        tensors = [memory[4096:5096].view(torch.int16), memory[1024:2048], memory[0:300]]
        before = [tensor.clone() for tensor in tensors]
        packed = pack(tensors, memory, staging=torch.empty(4096, dtype=torch.uint8))
        assert all(torch.equal(tensor, values) for tensor, values in zip(tensors, before, strict=True))
        assert packed.size == 1024 + 1024 + 512
        assert packed.host.data_ptr() == memory.data_ptr()
