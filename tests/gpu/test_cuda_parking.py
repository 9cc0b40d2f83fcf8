"""On a CUDA device: pipelines that are parked leave the device, and come back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from pytest_loraperf.backends.parking import Parked
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.gpu.pinned import HostMemory
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import SHIPPED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", compile="off"))
    yield session
    session.close()


@pytest.fixture
def bench(session: Session) -> Iterator[Bench]:
    shared = session.bench()
    bench = Bench(shared.shop, shared.model)
    yield bench
    bench.close()


def park(bench: Bench, name: str) -> Parked:
    """Park it however quickly it was built."""
    arm = bench.arms[name]
    arm.setup[0].seconds = 1000.0
    bench.park(arm)
    assert arm.waiting is not None
    assert arm.parked is not None
    return arm.parked


@pytest.mark.parametrize("strategy", [strategy.name for strategy in SHIPPED if not strategy.mistake])
def test_a_round_trip(session: Session, bench: Bench, strategy: str) -> None:
    first = bench.generate(strategy, session.request()).latents
    for _ in range(2):
        held = torch.cuda.memory_allocated()
        parked = park(bench, strategy)
        assert held - torch.cuda.memory_allocated() >= sum(each.bytes.numel() for each in parked.berths) > 0
        pipe = bench.arms[strategy].waiting
        assert not any(tensor.is_cuda for tensor in (*pipe.parameters(), *pipe.buffers()))
        assert torch.equal(bench.generate(strategy, session.request()).latents, first)


def test_torchao_keeps_its_parameters(session: Session, bench: Bench) -> None:
    shop = replace(bench.shop, choices=replace(bench.shop.choices, scheme="torchao_fp8_w8a8"))
    if not shop.device.has_fp8_matmul:
        pytest.skip("no fp8 matrix product on this device")
    mine = Bench(shop, bench.model)
    first = mine.generate("fused_then_quantize", session.request()).latents
    before = list(mine.arm("fused_then_quantize").pipeline.parameters())
    park(mine, "fused_then_quantize")
    after = list(mine.arm("fused_then_quantize").pipeline.parameters())
    assert all(new is old for new, old in zip(after, before, strict=True))
    assert torch.equal(mine.generate("fused_then_quantize", session.request()).latents, first)
    mine.close()


def test_host_memory_is_pinned_and_used_again(bench: Bench) -> None:
    bench.arm("fused")
    memory = park(bench, "fused").memory
    assert memory.bytes.is_pinned()
    bench.arm("fused")
    assert park(bench, "fused").memory is memory


def test_what_cannot_be_pinned_leaves_no_error_behind() -> None:
    memory = HostMemory(2**20, pinned=True)
    with pytest.raises(RuntimeError, match=r"^1048576 bytes of host memory cannot be pinned: CUDA error 712$"):
        memory._pin()  # it is pinned already
    torch.ones(1, device="cuda").add_(1)
    torch.cuda.synchronize()
