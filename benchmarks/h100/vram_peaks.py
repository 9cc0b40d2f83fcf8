"""What each phase of each strategy takes on this GPU, to hold ``loraperf forecast`` to.

    python benchmarks/h100/vram_peaks.py --json benchmarks/h100/vram_peaks.json
    loraperf forecast --model synthetic:full --strategy all --json forecast.json
    python benchmarks/h100/vram_peaks.py --against forecast.json --json benchmarks/h100/vram_peaks.json

The first measures; the last compares, and exits with 1 where live memory is over 2 % or a need over 5 % apart.
Building the two low_vram strategies takes about a minute each: ``--strategies`` measures others alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pytest_loraperf.bench.arm import Arm
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.gpu import nvml
from pytest_loraperf.measure.ledger import Ledger, Peak
from pytest_loraperf.measure.memory import meter_for
from pytest_loraperf.models import parse_model
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import CONTROL, StepKind

LIVE, NEED = 0.02, 0.05
"""How far a forecast may be off: of the live tensors' bytes, and of what a card must have."""


class LoggingLedger(Ledger):
    """Keeps what every operation took."""

    def __init__(self, session: Session) -> None:
        super().__init__(meter_for(session.device))
        self.log: list[dict[str, int]] = []

    @contextmanager
    def operation(self, holder: str, peak: Peak) -> Iterator[None]:
        """Measure one operation, as ever, and log it."""
        own = Peak()
        with super().operation(holder, own):
            yield
        for name in ("needed", "allocated"):
            setattr(peak, name, max(getattr(peak, name), getattr(own, name)))
        peak.resident = own.resident
        self.log.append(
            {
                "needed": own.needed,
                "allocated": own.allocated,
                "resident": own.resident,
                "live": self.meter.allocated(),
                "overhead": self.meter.overhead(),
            }
        )


class PlainBench(Bench):
    """Builds strategies without looking for the LoRA's effect: its products would take memory in between."""

    def _match(self, arm: Arm) -> None:
        super()._match(arm)
        clean_up()

    def _base_of(self, arm: Arm) -> None:
        """Look at no outputs."""


def clean_up() -> None:
    """Leave nothing of one strategy to the next, cuBLAS's workspace included."""
    gc.collect()
    if torch.cuda.is_available():
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch has no public name for it
        torch.cuda.empty_cache()


def measure(session: Session, bench: PlainBench, ledger: LoggingLedger, name: str) -> dict[str, Any]:
    clean_up()
    ledger.log.clear()
    before, start = ledger.meter.level(), time.perf_counter()
    arm = bench.arm(name)
    request = session.request(bench.model)
    # With offloading a step takes a quarter of a minute, and the first two bring all that is kept.
    if arm.recipe.strategy.has(StepKind.OFFLOAD):
        request = request.with_changes(steps=2)
    bench.generate(name, request)
    steps = [{"step": step.name, **taken} for step, taken in zip(arm.setup, ledger.log, strict=False)]
    found = {
        "vram": {
            "setup_peak": arm.setup_peak.needed,
            "resident": arm.resident,
            "runtime_peak": arm.runtime_peak.needed,
            "allocated_peak": max(arm.setup_peak.allocated, arm.runtime_peak.allocated),
        },
        "live": {"setup": arm.setup_peak.allocated, "runtime": arm.runtime_peak.allocated},
        "setup": steps,
        "runtime": ledger.log[-1],
        "reserved_before": before,
        "elsewhere": elsewhere(session),
        "seconds": round(time.perf_counter() - start, 2),
    }
    bench.release(name)
    return found


def elsewhere(session: Session) -> int | None:
    """Bytes that the driver says are in use and that this process does not hold; None without CUDA."""
    device = session.device
    held = nvml.process_bytes(device.uuid) if device.uuid else None
    if held is None:
        return None
    free, total = torch.cuda.mem_get_info(device.index)
    return total - free - held


def measure_all(given: argparse.Namespace) -> int:
    session = Session(
        Settings(model=given.model, device=given.device), tell=lambda line: print(line, file=sys.stderr)
    )
    ledger = LoggingLedger(session)
    bench = PlainBench(replace(session.shop, ledger=ledger), session.model(parse_model(given.model)))
    known = json.loads(given.json.read_text()) if given.json.exists() else {"strategies": {}}
    device = session.device
    if given.strategies == "all":
        known["command"] = f"python {' '.join(sys.argv)}"
    known["machine"] = {"name": device.name, "driver": device.driver, "torch": torch.__version__}
    known["model"] = str(bench.model)
    names = [strategy.name for strategy in session.strategies.select(given.strategies)]
    for name in [*names, CONTROL] if given.strategies == "all" else names:
        known["strategies"][name] = found = measure(session, bench, ledger, name)
        print(name, found["seconds"], "s", json.dumps(found["vram"]))
        given.json.write_text(json.dumps(known, indent=1) + "\n")
    return 0


def compare(given: argparse.Namespace) -> int:
    measured = json.loads(given.json.read_text())["strategies"]
    forecast = json.loads(given.against.read_text())["strategies"]
    off = 0
    for name in [name for name in measured if name in forecast]:
        cells = []
        for phase, real in measured[name]["vram"].items():
            error = forecast[name]["vram"][phase] / real - 1
            too_far = abs(error) > (LIVE if phase == "allocated_peak" else NEED)
            off += too_far
            cells.append(f"{phase} {error:+.2%}{' !' if too_far else ''}")
        print(f"{name:<20}", "  ".join(cells))
    print(f"{off} over the limits of {LIVE:.0%} (allocated_peak) and {NEED:.0%}")
    return int(off > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:full")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--strategies", default="all")
    parser.add_argument(
        "--json", type=Path, required=True, help="the measured sizes; added to where they are there"
    )
    parser.add_argument("--against", type=Path, help="compare them with this output of loraperf forecast")
    given = parser.parse_args()
    return compare(given) if given.against else measure_all(given)


if __name__ == "__main__":
    sys.exit(main())
