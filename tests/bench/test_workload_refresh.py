"""What makes a pipeline warm again after others had the device."""

from __future__ import annotations

from unittest.mock import Mock

from pytest_loraperf.bench.workloads import CallableWorkload, StrategyWorkload
from pytest_loraperf.request import Request


def test_a_strategy_takes_the_fewest_steps_that_its_scheduler_can() -> None:
    bench = Mock()
    bench.run.side_effect = lambda name, request: (name, request.steps)
    workload = StrategyWorkload(bench, "fused", (Request(steps=30), Request(steps=2)))
    assert workload.refresh() == [("fused", 2), ("fused", 2)]


def test_a_callable_is_called() -> None:
    assert CallableWorkload("mine", lambda: "an image").refresh() == "an image"
