"""Measure how fast the linter reads: ``python -m benchmarks.lint [--json FILE] PACKAGE…``.

All files of installed packages are linted, one by one, in one process: those that never mention a word that
matters, whose syntax alone is checked, apart from those that are followed line by line. A file's time is the least
of three: others on the machine do not count.

Exit status: 0 within the limits, 1 below one of them or where a package is not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

from pytest_loraperf.order.calls import WORDS
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.lint.source import read

RUNS = 3
SKIPPED_LIMIT, FOLLOWED_LIMIT = 150_000, 15_000


@dataclass(frozen=True)
class Speed:
    """What one package took: lines, and lines in a second of one core."""

    package: str
    skipped_lines: int
    skipped_lines_s: int
    followed_lines: int
    followed_lines_s: int

    def is_within_limits(self) -> bool:
        """Tell whether both kinds of files are read fast enough; a kind that is not there is."""
        return (not self.skipped_lines or self.skipped_lines_s >= SKIPPED_LIMIT) and (
            not self.followed_lines or self.followed_lines_s >= FOLLOWED_LIMIT
        )


def measure(package: str) -> Speed:
    """Lint all files of an installed package, or of the standard library (``stdlib``)."""
    lines, seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for file in sorted(_folder(package).rglob("*.py")):
        text = read(file)
        if isinstance(text, str) and "site-packages" not in file.relative_to(_folder(package)).parts:
            followed = any(word in text for word in WORDS)
            lines[followed] += text.count("\n")
            seconds[followed] += min(_seconds(file) for _ in range(RUNS))
    rates = {kind: round(lines[kind] / seconds[kind]) if seconds[kind] else 0 for kind in lines}
    return Speed(package, lines[False], rates[False], lines[True], rates[True])


def _folder(package: str) -> Path:
    if package == "stdlib":
        return Path(json.__file__).parents[1]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"lint: {package} is not installed here")
    return Path(found.origin).parent


def _seconds(file: Path) -> float:
    start = process_time()
    text = read(file)
    assert isinstance(text, str)
    lint_source(text, str(file))
    return process_time() - start


def main() -> int:
    """Measure, print, write the JSON where asked, and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure how fast the linter reads.")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="an installed package, or stdlib")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    speeds = []
    for package in options.packages:
        speeds.append(speed := measure(package))
        print(
            f"{package}: {speed.skipped_lines_s:,} lines/s of {speed.skipped_lines:,} without the words, "
            f"{speed.followed_lines_s:,} of {speed.followed_lines:,} with them"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(speed) for speed in speeds], indent=2) + "\n")
    print(f"allowed: {SKIPPED_LIMIT:,} and {FOLLOWED_LIMIT:,} lines/s at least")
    return 0 if all(speed.is_within_limits() for speed in speeds) else 1


if __name__ == "__main__":
    sys.exit(main())
