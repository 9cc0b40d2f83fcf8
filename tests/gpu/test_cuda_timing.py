"""On a CUDA device: the GPU's own time of a call and of its steps, and what the driver says meanwhile."""

from __future__ import annotations

import pytest
import torch

from pytest_loraperf.measure.timing import Tick
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def session() -> Session:
    return Session(Settings(model="synthetic:tiny", compile="off"))


def test_gpu_time_is_within_wall_time(session: Session) -> None:
    left = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def steps(tick: Tick) -> None:
        for products in (10, 40):
            tick()
            for _ in range(products):
                left @ left
        tick()

    session.measurer.watch.sample(steps)
    sample = session.measurer.watch.sample(steps)
    assert sample.gpu_seconds is not None
    assert 0 < sample.gpu_seconds <= sample.seconds
    short, long = sample.steps
    assert 2 < long / short < 8
    assert sum(sample.steps) <= sample.gpu_seconds * 1.01


def test_the_driver_says_what_the_gpu_does(session: Session) -> None:
    reading = session.monitor()
    assert reading is not None
    assert reading.sm_clock_mhz
    assert reading.used_bytes
    assert reading.throttle is not None


def test_a_strategy_is_timed_step_by_step(session: Session) -> None:
    bench, request = session.bench(), session.request()
    bench.arm("fused")
    sample = session.measurer.watch.sample(lambda tick: bench.run("fused", request, tick))
    assert len(sample.steps) == request.steps
    session.close()
