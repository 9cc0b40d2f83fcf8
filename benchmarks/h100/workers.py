"""Whether several workers on one GPU say what one process says: ``python benchmarks/h100/workers.py --json FILE``.

The gates of ``test_many.py`` run without workers and with them, several times. The verdicts of all runs have to be
the same, and nothing else may run on the device while a test measures: each call logs when it began and ended. A
test measures from the second call of a callable, since the first is its own, to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

SUITE = Path(__file__).with_name("test_many.py")


@dataclass(frozen=True)
class Run:
    """One run: its ``workers``, wall ``seconds``, verdicts by test, and how often a test measured with company.

    ``windows`` are the tests that measured, ``overlaps`` the calls of other tests that fall into those times.
    """

    workers: int
    seconds: float
    verdicts: dict[str, str]
    windows: int
    overlaps: int


@dataclass(frozen=True)
class Call:
    """One call of a test's callable, in seconds of the host's monotonic clock."""

    test: str
    name: str
    began: float
    ended: float


def run(workers: int, folder: Path) -> Run:
    """Run the suite once; raise RuntimeError where it could not be run."""
    calls, out = folder / "calls", folder / "results.json"
    calls.mkdir()
    command = [sys.executable, "-m", "pytest", str(SUITE), "-q", f"-n{workers}", f"--loraperf-json={out}"]
    start = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | {"LORAPERF_CALLS": str(calls)}, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode not in {0, 1} or not out.exists():
        raise RuntimeError(f"exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = json.loads(out.read_text(encoding="utf-8"))["verdicts"]
    made = read_calls(calls)
    measured = windows(made)
    return Run(
        workers=workers,
        seconds=round(seconds, 2),
        verdicts={each["nodeid"].split("::")[-1]: f"{each['code']} {each['status']}" for each in found},
        windows=len(measured),
        overlaps=overlaps(made, measured),
    )


def read_calls(folder: Path) -> list[Call]:
    """Return what each test of each process called, in the order of the calls of each."""
    lines = [(file.name, *line.split()) for file in folder.iterdir() for line in file.read_text().splitlines()]
    return [Call(test, name, float(began), float(ended)) for test, name, began, ended in lines]


def windows(calls: list[Call]) -> dict[str, tuple[float, float]]:
    """Return when each test measured: what it called for the second time and more."""
    seen: set[tuple[str, str]] = set()
    found: dict[str, tuple[float, float]] = {}
    for call in calls:
        if (call.test, call.name) in seen:
            began, _ = found.get(call.test, (call.began, call.ended))
            found[call.test] = (began, call.ended)
        seen.add((call.test, call.name))
    return found


def overlaps(calls: list[Call], measured: dict[str, tuple[float, float]]) -> int:
    """Count the calls of other tests while one measures."""
    return sum(
        call.test != test and call.began < ended and call.ended > began
        for test, (began, ended) in measured.items()
        for call in calls
    )


def main() -> int:
    """Run them all; return 1 where verdicts differ or measurements overlap."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=4, metavar="N")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs with workers; two are without")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    runs = []
    for workers in (0, *[given.workers] * given.runs, 0):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(workers, Path(folder)))
        print(f"-n {workers}: {runs[-1].seconds} s, {runs[-1].overlaps} overlaps", file=sys.stderr)
    same = all(each.verdicts == runs[0].verdicts for each in runs)
    apart = not any(each.overlaps for each in runs)
    if given.json:
        content = {
            "command": f"python {' '.join(sys.argv)}",
            "same_verdicts": same,
            "runs": [asdict(each) for each in runs],
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    verdicts, measurements = "the same" if same else "DIFFER", "apart" if apart else "OVERLAP"
    print(f"{len(runs)} runs, verdicts {verdicts}, measurements {measurements}")
    return 0 if same and apart else 1


if __name__ == "__main__":
    sys.exit(main())
