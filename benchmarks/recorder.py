"""Measure what the order recorder adds to a call: ``python -m benchmarks.recorder [--json FILE]``.

A method that does nothing is called bare and wrapped, as a library's entry point is: ``recorded`` calls are the
outermost, which stand in the history; ``nested`` ones come from inside a recorded call and are passed through.

Exit status: 0 within the limit, 1 over it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch

from pytest_loraperf.order.entry_points import PIPELINE, EntryPoint
from pytest_loraperf.order.events import Kind
from pytest_loraperf.order.runtime.declared import declared
from pytest_loraperf.order.runtime.patches import Patches
from pytest_loraperf.order.runtime.recorder import Recorder

CALLS = 2000
RUNS = 15
LIMIT_US = 20.0


@dataclass(frozen=True)
class Cost:
    """Microseconds of the processor for one call."""

    plain_us: float
    recorded_us: float
    nested_us: float

    @property
    def added_us(self) -> float:
        """What recording adds to a call at most."""
        return max(self.recorded_us, self.nested_us) - self.plain_us


class Pipe:
    """Stands for a library's pipeline."""

    def __init__(self) -> None:
        self.transformer = torch.nn.Linear(2, 2)

    def offload(self) -> None:
        """Do nothing: the time is the recorder's alone."""


def measure(recorder: Recorder) -> Cost:
    """Measure a call bare, recorded and nested."""
    point = EntryPoint("pipes", "Pipe.offload", Kind.OFFLOAD, "pipe.offload", PIPELINE)
    pipe = Pipe()
    plain = _us(pipe.offload)
    patches = Patches({("pipes", "Pipe.offload"): recorder._recording([point])})  # noqa: SLF001 - no public way to one
    patches._wrap(Pipe, "offload", patches.wrappers["pipes", "Pipe.offload"])  # noqa: SLF001 - as above
    try:
        recorded = _us(pipe.offload)
        if not recorder.histories.of(pipe.transformer):
            raise AssertionError("nothing was recorded, so nothing was measured")
        with declared():
            nested = _us(pipe.offload)
    finally:
        patches.undo()
    return Cost(round(plain, 3), round(recorded, 3), round(nested, 3))


def _us(call: Callable[[], Any]) -> float:
    """Return the least of some runs: others on the machine do not count."""
    runs = []
    for _ in range(RUNS):
        start = process_time()
        for _ in range(CALLS):
            call()
        runs.append((process_time() - start) / CALLS * 1e6)
    return min(runs)


def main() -> int:
    """Measure, print, write the JSON where asked, and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure what the order recorder adds to a call.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    recorder = Recorder(str(Path.cwd()), tell=print, trouble=print)
    cost = measure(recorder)
    recorder.close()
    print(f"a call, min of {RUNS}: {cost.plain_us} us bare, {cost.recorded_us} recorded, {cost.nested_us} nested")
    print(f"added: {cost.added_us:.1f} us, {LIMIT_US} us allowed")
    if options.json:
        options.json.write_text(json.dumps(asdict(cost), indent=2) + "\n")
    return 0 if cost.added_us <= LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
