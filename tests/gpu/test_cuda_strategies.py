"""On a CUDA device: the tiny model's strategies, their memory, and outputs equal to what offloading gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.options import Settings
from pytest_loraperf.run.judging import compare
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import SHIPPED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", compile="off"))
    yield session
    session.close()


@pytest.fixture(scope="module")
def bench(session: Session) -> Bench:
    return session.bench()


@pytest.mark.parametrize("strategy", [strategy.name for strategy in SHIPPED if not strategy.mistake])
def test_equivalent_on_cuda(session: Session, bench: Bench, strategy: str) -> None:
    found = compare(bench, strategy, "standard_lora", session.request())
    assert found.rel_l2 < 0.08
    assert found.effect_kept is not None
    assert found.effect_kept > 0.3


def test_offloading_gives_what_resident_weights_give(session: Session, bench: Bench) -> None:
    assert compare(bench, "low_vram_optimized", "fused_then_quantize", session.request()).rel_l2 < 1e-3


def test_vram_holds_the_context(session: Session, bench: Bench) -> None:
    arm = bench.arm("fused")
    assert arm.resident > arm.setup_peak.allocated
    assert session.ledger.meter.overhead() > 100 * 2**20
