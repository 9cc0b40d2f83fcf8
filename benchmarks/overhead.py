"""What measuring costs over a bare loop that synchronises and reads a clock: ``python benchmarks/overhead.py``.

Both take turns within each round, on one generation of a strategy. What is compared is the whole of a round:
taking the sample, marking the steps, watching the GPU. The limit is 1 %. What a decision takes is told too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from pytest_loraperf.measure.timing import NO_TICK, garbage_held
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.verdict import decide
from pytest_loraperf.verdict.decision import estimate

LIMIT = 1.01
DECISION_ROUNDS = 10_000


def measure(session: Session, strategy: str, rounds: int, steps: int | None) -> tuple[list[float], list[float]]:
    """Return seconds of rounds with our measuring, and of the bare loop."""
    bench, request = session.bench(), session.request()
    if steps is not None:
        request = request.with_changes(steps=steps)
    bench.generate(strategy, request)
    watch, synchronize = session.measurer.watch, session.device.synchronize

    def bare() -> None:
        synchronize()
        time.perf_counter()
        bench.run(strategy, request, NO_TICK)
        synchronize()
        time.perf_counter()

    def ours() -> None:
        watch.sample(lambda tick: bench.run(strategy, request, tick))
        session.monitor()

    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    arms = {"ours": ours, "bare": bare}
    order = np.random.default_rng(0)
    with garbage_held():
        for number in range(rounds + 3):
            for name in order.permutation(list(arms)):
                start = time.perf_counter()
                arms[name]()
                if number >= 3:  # noqa: PLR2004 - the first rounds warm up
                    taken[name].append(time.perf_counter() - start)
    return taken["ours"], taken["bare"]


def decision_seconds() -> float:
    """Return the seconds of one decision on 10,000 rounds that cannot tell, the slowest kind; best of five."""
    draw = np.random.default_rng(0)
    samples, reference = np.exp(draw.normal(0, 0.2, (2, DECISION_ROUNDS)))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        decide(list(samples), list(reference), max_ratio=1.0)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    """Measure, print, write; exit with 1 over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--strategy", default="fused")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--steps", type=int, help="denoising steps of a generation; the default is the model's")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    session = Session(Settings(model=given.model, compile="off"))
    try:
        ours, bare = measure(session, given.strategy, given.rounds, given.steps)
    finally:
        session.close()
    ratio, interval = estimate(ours, bare)
    found = {
        "command": " ".join(["python", *sys.argv]),
        "machine": session.device.name,
        "torch": torch.__version__,
        "model": str(session.model()),
        "strategy": given.strategy,
        "rounds": given.rounds,
        "steps": given.steps,
        "ratio": ratio,
        "interval": interval,
        "bare_median_s": float(np.median(bare)),
        "decision_10000_rounds_s": decision_seconds(),
    }
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(interval[0] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
