"""Whether strategies pass or fail on a small card, in any order: ``python benchmarks/h100/cap.py --json FILE``.

The tests of ``test_cap.py`` run in one session on a card that is played (``--gpu-budget-mode=cap``), several times
in an order that pytest-randomly shuffles. Each must end in the same way in every order, and none with anything but
the plugin's own message.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

SUITE = Path(__file__).with_name("test_cap.py")


@dataclass(frozen=True)
class Run:
    """One order: its ``seed``, wall ``seconds``, and how each test ended, in the order in which they ran."""

    seed: int
    seconds: float
    outcomes: dict[str, str]


def run(seed: int, given: argparse.Namespace, folder: Path) -> Run:
    """Run the suite once; raise RuntimeError where it could not be run."""
    report = folder / "junit.xml"
    order = (
        "-o",
        "addopts=-p no:asyncio",
        f"--randomly-seed={seed}",
    )
    card = (f"--gpu-budget={given.card}", "--gpu-budget-mode=cap", "--loraperf-compile=off", *given.more.split())
    command = [sys.executable, "-m", "pytest", str(SUITE), *order, *card, f"--junitxml={report}"]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1} or not report.exists():
        raise RuntimeError(f"exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Run(seed, round(time.monotonic() - start, 1), outcomes(report))


def outcomes(report: Path) -> dict[str, str]:
    """Return how each test ended: ``passed``, or the line that it failed with."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest's own report
        failed = [each for kind in ("failure", "error") for each in case.iter(kind)]
        found[case.attrib["name"]] = "; ".join(each.attrib["message"] for each in failed) or "passed"
    return found


def main() -> int:
    """Run them all; return 1 where a test ends in another way, or in one that is not the plugin's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--card", default="14GB", metavar="SIZE")
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    parser.add_argument("--more", default="", metavar="OPTIONS", help="further options of pytest")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    runs = []
    for seed in range(1, given.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(seed, given, Path(folder)))
        passed = [name for name, end in runs[-1].outcomes.items() if end == "passed"]
        print(f"seed {seed}: {runs[-1].seconds} s, passed: {', '.join(passed)}", file=sys.stderr)
    ends = [{name: end == "passed" for name, end in each.outcomes.items()} for each in runs]
    same = all(each == ends[0] for each in ends)
    clean = all(end == "passed" or "loraperf" in end for each in runs for end in each.outcomes.values())
    if given.json:
        content = {
            "command": f"python {' '.join(sys.argv)}",
            "card": given.card,
            "same": same,
            "clean": clean,
            "runs": [asdict(each) for each in runs],
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{len(runs)} orders: {'the same' if same else 'DIFFERENT'} ends, {'clean' if clean else 'NOT CLEAN'}")
    return 0 if same and clean else 1


if __name__ == "__main__":
    sys.exit(main())
