"""What was seen of measuring itself, for the documents: what it costs, and whether workers disturb it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import median

from benchmarks.measured import read_measured
from pytest_loraperf.units import format_duration


def overhead_lines(file: Path) -> str:
    """Return what a measured generation takes beside one in a bare loop."""
    found = read_measured(file)
    ratio, (low, high) = found["ratio"], found["interval"]
    bare, decision = (format_duration(found[name]) for name in ("bare_median_s", "decision_10000_rounds_s"))
    what = ", ".join([found["machine"], f"torch {found['torch']}", found["model"], found["strategy"]])
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    return f"""\
- {what}, {found["steps"]} steps, {found["rounds"]} rounds in turn:
  a measured generation takes {ratio:.4f} times ({interval}) that of a bare loop, {bare}.
- A decision on 10,000 rounds takes {decision}.
- `{found["command"]}`"""


def workers_table(file: Path) -> str:
    """Return how the runs without and with workers ended: verdicts, seconds, and calls beside a measurement."""
    found = read_measured(file)
    runs = found["runs"]
    verdicts = {json.dumps(each["verdicts"], sort_keys=True) for each in runs}
    lines = [
        "| | runs | seconds | tests | verdicts | calls of others while a test measured |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for workers in dict.fromkeys(each["workers"] for each in runs):
        those = [each for each in runs if each["workers"] == workers]
        said = Counter(verdict.split()[-1] for verdict in those[0]["verdicts"].values())
        cells = (
            f"`-n {workers}`",
            str(len(those)),
            f"{median(each['seconds'] for each in those):.1f}",
            str(those[0]["windows"]),
            ", ".join(f"{count} {status}" for status, count in said.items()),
            str(sum(each["overlaps"] for each in those)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    same = "the same" if len(verdicts) == 1 else "NOT THE SAME"
    lines.append(f"\n- The verdicts of all {len(runs)} runs were {same}, test by test.\n- `{found['command']}`")
    return "\n".join(lines)
