"""Forecasts of the full-size model against what was measured of it (benchmarks/h200)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.forecast.card import H100
from pytest_loraperf.forecast.forecast import Forecaster
from pytest_loraperf.models import Synthetic
from pytest_loraperf.request import FULL_REQUEST
from pytest_loraperf.strategies import Strategies

MEASURED = Path(__file__).parents[2] / "benchmarks/h200/vram_peaks.json"
LIVE, NEEDED = 0.02, 0.05
"""How far a forecast may be off: of the live tensors' bytes, and of what a card must have."""


@pytest.mark.parametrize("name", ["standard_lora", "fused_then_quantize", "low_vram", "low_vram_optimized"])
def test_it_is_what_was_measured(name: str) -> None:
    found = Forecaster(H100, Strategies(), Choices(), lambda _: None).forecast(
        name, Synthetic("full"), (), FULL_REQUEST
    )
    assert found.error is None
    vram = json.loads(MEASURED.read_text(encoding="utf-8"))["strategies"][name]["vram"]
    assert found.allocated == pytest.approx(vram["allocated_peak"], rel=LIVE)
    needs = {"setup": vram["setup_peak"], "resident": vram["resident"], "runtime": vram["runtime_peak"]}
    assert found.phases == pytest.approx(needs, rel=NEEDED)


def test_a_card_with_room_for_fewer_blocks_would_be_told_apart() -> None:
    choices = Choices(offload_limit=5 * 2**30)
    found = Forecaster(H100, Strategies(), choices, lambda _: None).forecast(
        "low_vram_optimized", Synthetic("full"), (), FULL_REQUEST
    )
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))["strategies"]["low_vram_optimized"]
    assert found.allocated < (1 - LIVE) * measured["vram"]["allocated_peak"]
