"""On a CUDA device: diffusers' pipelines, with streams, fp8 and regional compilation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import SHIPPED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
RIGHT = [strategy.name for strategy in SHIPPED if strategy.name != "quantize_then_fuse"]


@pytest.fixture(scope="module", params=["synthetic:tiny", "synthetic:flux:tiny"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    session = Session(Settings(model=request.param, backend="diffusers"))
    yield session.bench()
    session.close()


@pytest.mark.parametrize("name", RIGHT)
def test_each_strategy_has_its_lora_and_its_output(bench: Bench, name: str) -> None:
    request = Session(Settings(model=str(bench.model))).request()
    wanted, found = (bench.output(each, request).latents for each in ("standard_lora", name))
    assert torch.linalg.vector_norm(found - wanted) < 0.15 * torch.linalg.vector_norm(wanted)
    assert all(0.9 < gain < 1.1 for gain in bench.arms[name].gains.values())


@pytest.mark.parametrize("name", ["low_vram", "low_vram_optimized"])
def test_between_calls_the_transformer_is_in_host_memory(bench: Bench, name: str) -> None:
    pipe = bench.arm(name).pipeline
    bench.generate(name, Session(Settings(model=str(bench.model))).request())
    blocks = pipe.transformer.transformer_blocks
    assert {parameter.device.type for parameter in blocks[0].parameters()} == {"cpu"}
