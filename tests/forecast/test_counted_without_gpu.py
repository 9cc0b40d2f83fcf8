"""What strategies for CUDA compute and move, counted without a GPU: fp8 products, and weights that are streamed."""

from __future__ import annotations

import pytest

from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.backends.streaming.pipeline import offloaded
from pytest_loraperf.forecast.bench import ForecastBench, forecast_bench
from pytest_loraperf.forecast.card import H100
from pytest_loraperf.models import Synthetic
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.strategies import Strategies


def built(name: str) -> ForecastBench:
    bench = forecast_bench(H100, Synthetic("tiny"), [], Strategies(), Choices(), lambda _line: None)
    bench.arm(name)
    bench.shop.ledger.meter.replay.look_for_blocks = lambda _: None  # type: ignore[attr-defined]  # every block counts
    bench.generate(name, TINY_REQUEST)
    return bench


def test_the_products_of_torchao_are_in_fp8_and_the_lora_and_attention_are_not() -> None:
    plain = built("fused").count("fused", TINY_REQUEST)
    fast = built("fused_then_quantize").count("fused_then_quantize", TINY_REQUEST)
    attached = built("quantize_then_lora").count("quantize_then_lora", TINY_REQUEST)
    assert set(plain.operations) == {"bfloat16"}
    assert sum(fast.operations.values()) == pytest.approx(sum(plain.operations.values()), rel=1e-3)
    assert attached.operations["float8_e4m3fn"] == fast.operations["float8_e4m3fn"] > 1e8
    assert attached.operations["bfloat16"] > fast.operations["bfloat16"] > 0
    assert 0.5 * plain.bytes < fast.bytes < 0.6 * plain.bytes
    assert fast.not_counted == attached.not_counted == ()


def test_weights_that_are_streamed_cross_the_bus() -> None:
    resident, bench = built("standard_lora"), built("low_vram")
    streamed = offloaded(bench.arms["low_vram"].pipeline)
    assert streamed is not None
    with bench.shop.ledger.meter.watching():
        streamed.release()  # so that all blocks have to come
    moved = streamed.stream.moved
    found = bench.count("low_vram", TINY_REQUEST)
    moved = streamed.stream.moved - moved
    assert moved > 0
    beside = resident.count("standard_lora", TINY_REQUEST).bus_bytes
    visited = sum(each._packed.size for each in streamed.visitors.values())
    assert found.bus_bytes == moved + visited + beside
    assert found.operations == resident.count("standard_lora", TINY_REQUEST).operations
