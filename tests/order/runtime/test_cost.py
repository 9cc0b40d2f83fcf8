"""What recording adds to a call."""

from __future__ import annotations

from benchmarks.recorder import measure
from pytest_loraperf.hooks.guard import OrderGuard

LIMIT_US = 100  # 20 is promised, and held by the benchmark; shared machines are slow at times


def test_a_recorded_call_costs_microseconds(guard: OrderGuard) -> None:
    assert guard.recorder is not None
    cost = measure(guard.recorder)
    assert cost.recorded_us > cost.nested_us > cost.plain_us
    assert cost.added_us < LIMIT_US, cost
