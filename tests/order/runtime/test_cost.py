"""What recording adds to a call."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
import torch

from pytest_loraperf.guard import OrderGuard

CALLS = 2000
LIMIT_US = 100  # 20 is promised; shared machines are slow at times


def cost(call: Callable[[], Any]) -> float:
    """Microseconds of the processor for one call, the least of five runs: others on the machine do not count."""
    runs = []
    for _ in range(5):
        start = process_time()
        for _ in range(CALLS):
            call()
        runs.append((process_time() - start) / CALLS * 1e6)
    return min(runs)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "nested"])
def test_a_recorded_call_costs_microseconds(guard: OrderGuard, recorded: bool) -> None:
    from pytest_loraperf.order.entry_points import PIPELINE, EntryPoint
    from pytest_loraperf.order.events import Kind
    from pytest_loraperf.order.runtime.declared import declared
    from pytest_loraperf.order.runtime.patches import Patches

    class Pipe:
        def __init__(self) -> None:
            self.transformer = torch.nn.Linear(2, 2)

        def offload(self) -> None:
            pass

    assert guard.recorder is not None
    point = EntryPoint("pipes", "Pipe.offload", Kind.OFFLOAD, "pipe.offload", PIPELINE)
    pipe = Pipe()
    plain = cost(pipe.offload)
    patches = Patches({("pipes", "Pipe.offload"): guard.recorder._recording([point])})
    patches._wrap(Pipe, "offload", patches.wrappers["pipes", "Pipe.offload"])
    if recorded:
        added = cost(pipe.offload) - plain
    else:
        with declared():
            added = cost(pipe.offload) - plain
    assert added < LIMIT_US, f"{added:.1f} us added to {plain:.2f} us"
    assert bool(guard.recorder.histories.of(pipe.transformer)) == recorded
