"""Measure how long a forecast of each strategy takes: ``python -m benchmarks.forecasting [--json FILE]``.

The full synthetic model, 1024×1024, in one process, one strategy after the other. Forecasts of the tiny model come
first, so that imports are not counted. ``cpu_s`` is the processor's time, which other processes disturb less.

Exit status: 0 where each is within the limit, 1 where one takes longer on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.forecast.card import H100
from pytest_loraperf.forecast.forecast import Forecaster
from pytest_loraperf.models import Synthetic
from pytest_loraperf.request import FULL_REQUEST, TINY_REQUEST
from pytest_loraperf.strategies import CONTROL, Strategies

LIMIT_S = 10.0


@dataclass(frozen=True)
class Taken:
    """Seconds that one forecast took, on the clock and of the processor."""

    wall_s: float
    cpu_s: float


def measure(forecaster: Forecaster, name: str) -> Taken:
    """Time one forecast at full size.

    Raises:
        RuntimeError: it could not be made.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    found = forecaster.forecast(name, Synthetic("full"), (), FULL_REQUEST)
    taken = Taken(round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2))
    if found.error is not None:
        raise RuntimeError(f"{name}: {found.error}")
    return taken


def main() -> int:
    """Measure all strategies, print them, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here, too")
    given = parser.parse_args()
    strategies = Strategies()
    forecaster = Forecaster(H100, strategies, Choices(), lambda _: None)
    for name in ("fused_then_quantize", "low_vram_optimized"):
        forecaster.forecast(name, Synthetic("tiny"), (), TINY_REQUEST)
    taken = {name: measure(forecaster, name) for name in strategies if name != CONTROL}
    for name, each in taken.items():
        print(f"{name:<20} {each.wall_s:5.1f} s, {each.cpu_s:5.1f} s of the processor")
    if given.json is not None:
        found = {
            "command": "python -m benchmarks.forecasting --json benchmarks/cpu/forecasting.json",
            "torch": torch.__version__,
            "cpus": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "strategies": {name: asdict(each) for name, each in taken.items()},
        }
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(any(each.wall_s > LIMIT_S for each in taken.values()))


if __name__ == "__main__":
    sys.exit(main())
