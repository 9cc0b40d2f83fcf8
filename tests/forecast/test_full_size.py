"""Forecasts of the full-size model against what an H100 measured of it (benchmarks/h100)."""

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

H100_RESULTS = Path(__file__).parents[2] / "benchmarks/h100"


@pytest.mark.parametrize(
    ("name", "results", "live", "needed"),
    [
        ("fused", "demo.json", 0.02, 0.05),
        ("fused_then_quantize", "demo.json", 0.02, 0.05),
        ("low_vram_optimized", "gate.json", 0.08, 0.05),  # it streams
    ],
)
def test_it_is_what_was_measured(name: str, results: str, live: float, needed: float) -> None:
    found = Forecaster(H100, Strategies(), Choices(), lambda _: None).forecast(
        name, Synthetic("full"), (), FULL_REQUEST
    )
    assert found.error is None
    vram = json.loads((H100_RESULTS / results).read_text())["strategies"][name]["vram"]
    assert found.allocated == pytest.approx(vram["allocated_peak"], rel=live)
    needs = {"setup": vram["setup_peak"], "resident": vram["resident"], "runtime": vram["runtime_peak"]}
    assert found.phases == pytest.approx(needs, rel=needed)
