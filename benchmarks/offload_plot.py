"""Draw speed against the card's size from the committed results: ``python benchmarks/offload_plot.py``."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "h200" / "offload.json"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "offload.svg"
RESIDENT = "fused_then_quantize"


def limits(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return what was measured by the card's size in GB, the smallest first."""
    names = [name for name in found if name.startswith("limit_")]
    return {size: found[f"limit_{size}"] for size in sorted(int(name.removeprefix("limit_")) for name in names)}


def faster_with_more(found: dict[str, Any], noise: float = 0.02) -> bool:
    """Whether no larger card is slower than a smaller one, by more than noise."""
    seconds = [each["s"] for each in limits(found).values()]
    return all(after <= before * (1 + noise) for before, after in pairwise(seconds))


def draw(found: dict[str, Any], file: Path) -> None:
    """Draw seconds a generation, and what bounds them, against the card's size."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - the tables of the documents do without

    measured = limits(found)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(measured), [each["s"] for each in measured.values()], "o-", label="offload[stream]")
    bounds = [each["bound_s"] for each in measured.values() if "bound_s" in each]
    if len(bounds) == len(measured):
        axes.plot(list(measured), bounds, "--", label="copying at the bus's speed, or computing")
    if RESIDENT in found:
        axes.axhline(found[RESIDENT]["s"], color="grey", linewidth=1, label="not offloaded")
    axes.set(xlabel="card (GB)", ylabel="seconds a generation", ylim=(0, None), title=found.get("device", "CPU"))
    axes.legend()
    figure.savefig(file)


def main() -> int:
    """Draw, and exit 1 where a larger card is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--svg", type=Path, default=PLOT)
    given = parser.parse_args()
    found = json.loads(given.results.read_text(encoding="utf-8"))
    draw(found, given.svg)
    if not faster_with_more(found):
        print("a larger card is slower than a smaller one", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
