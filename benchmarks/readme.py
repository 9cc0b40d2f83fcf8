"""Write the README's measured blocks from the committed results: ``python benchmarks/readme.py [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pytest_loraperf.calibrate.calibration import read_calibration
from pytest_loraperf.calibrate.table import markdown_lines
from pytest_loraperf.effect import effect_lines
from pytest_loraperf.report.markdown import markdown_table, replace_block
from pytest_loraperf.report.results import read_results
from pytest_loraperf.report.terminal import summary

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
WIDTH = 118


def _run(file: Path) -> str:
    results = read_results(file)
    lines = "\n".join(summary(results, WIDTH))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _table(file: Path) -> str:
    results = read_results(file)
    return f"{markdown_table(results)}\n- `{results.command}`"


def _effect(file: Path) -> str:
    results = read_results(file)
    lines = "\n".join(effect_lines(results, WIDTH))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _calibration(file: Path) -> str:
    found = read_calibration(file)
    return "\n".join([*markdown_lines(found), f"- `{found.command}`"])


BLOCKS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "demo": ("cpu/demo.json", _run),
    "h100": ("h100/demo.json", _table),
    "effect": ("cpu/effect.json", _effect),
    "calibration": ("cpu/calibration.json", _calibration),
}


def rendered(text: str) -> str:
    """Return the README with each block made anew from its results file."""
    for name, (file, render) in BLOCKS.items():
        text = replace_block(text, name, render(ROOT / "benchmarks" / file))
    return text


def main() -> int:
    """Rewrite the README, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when it would change")
    given = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = rendered(before)
    if given.check:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
