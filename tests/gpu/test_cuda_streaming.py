"""On a CUDA device: blocks are streamed from pinned memory, and bits and memory are what they are to be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest
import torch

from pytest_loraperf.backends.pipelines import qwen_image
from pytest_loraperf.backends.streaming import offloaded, stream_blocks
from pytest_loraperf.backends.synthetic_sizes import TINY
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GB = 2**30
LAYERS = 8


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(f"{qwen_image.__name__}.TINY", dataclasses.replace(TINY, layers=LAYERS))
        session = Session(Settings(model="synthetic:tiny", compile="off"))
        yield session
        session.close()


@pytest.fixture(scope="module")
def bench(session: Session) -> Bench:
    return session.bench()


@pytest.mark.parametrize(
    ("strategy", "resident"), [("low_vram", "lora_then_quantize"), ("low_vram_optimized", "fused_then_quantize")]
)
def test_bits_are_those_of_resident_weights_on_any_card(
    session: Session, bench: Bench, strategy: str, resident: str
) -> None:
    request = session.request()
    wanted = bench.generate(resident, request).latents
    assert torch.equal(bench.generate(strategy, request).latents, wanted)
    pipe = bench.arm(strategy).pipeline
    state = offloaded(pipe)
    assert state is not None
    everything = state.limit
    size = max(block.packed.size for block in state.stream.stacks[0])
    for limit in (everything, GB, 3 * 2**28 + 16 * 2**20 + 4 * size):
        stream_blocks(pipe, limit)
        for _ in range(3):
            assert torch.equal(session.shop.backend.generate(pipe, request).latents.float().cpu(), wanted)
        state = offloaded(pipe)
        assert state is not None
        assert all(block.packed.host.is_pinned() for block in state.stream.blocks)
    stream_blocks(pipe, everything)


def test_pinned_memory_is_used_again(bench: Bench) -> None:
    pipe = bench.arm("low_vram_optimized").pipeline
    state = offloaded(pipe)
    assert state is not None
    before = [block.packed.host.data_ptr() for block in state.stream.stacks[0]]
    stream_blocks(pipe, GB)
    state = offloaded(pipe)
    assert state is not None
    assert [block.packed.host.data_ptr() for block in state.stream.stacks[0]] == before


def test_blocks_leave_the_device_when_the_arm_is_parked(session: Session, bench: Bench) -> None:
    pipe, request = bench.arm("low_vram").pipeline, session.request()
    wanted = session.shop.backend.generate(pipe, request).latents
    parked = session.shop.backend.park(pipe)
    assert not any(parameter.is_cuda for parameter in pipe.parameters())
    session.shop.backend.unpark(pipe, parked)
    assert torch.equal(session.shop.backend.generate(pipe, request).latents, wanted)


def test_a_forked_child_is_told_and_the_parent_goes_on(session: Session, bench: Bench) -> None:
    pipe, request = bench.arm("low_vram").pipeline, session.request()
    wanted = session.shop.backend.generate(pipe, request).latents
    state = offloaded(pipe)
    assert state is not None
    child = os.fork()
    if child == 0:
        try:
            state.stream.enter(state.stream.blocks[0])
        except LoraperfError as error:
            os._exit(0 if "was forked from" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(session.shop.backend.generate(pipe, request).latents, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_on_a_second_gpu() -> None:
    first = torch.cuda.memory_allocated(0)
    session = Session(Settings(model="synthetic:tiny", compile="off", device="cuda:1"))
    bench = session.bench()
    request = session.request()
    wanted = bench.generate("fused_then_quantize", request).latents
    assert torch.equal(bench.generate("low_vram_optimized", request).latents, wanted)
    assert torch.cuda.memory_allocated(0) == first
    session.close()
