"""Write the HTML report that the README links, and its picture: ``python docs/report_image.py``, with Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pytest_loraperf.commands.reporting import Outputs, run_report
from pytest_loraperf.compare.history import MAX_SLOWDOWN
from pytest_loraperf.units import parse_size

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "h200" / "gate.json"
PAGE = ROOT / "docs" / "report.html"
IMAGE = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1280, 1850
"""Pixels: the top of the page, to the end of the first charts."""


def main() -> int:
    """Write the page and the picture, and say how large that is."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium here; install it (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    run_report([RESULTS], Outputs(html=PAGE), parse_size("24GB"), MAX_SLOWDOWN, lambda _: None)
    subprocess.run(  # noqa: S603 - our own page
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={IMAGE}",
            PAGE.as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    print(f"wrote {IMAGE.relative_to(ROOT)}, {IMAGE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
