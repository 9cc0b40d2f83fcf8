"""The page that the README links is what the committed results give now, but for how charts are drawn."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_loraperf.commands.reporting import Outputs, run_report
from pytest_loraperf.compare.history import MAX_SLOWDOWN
from pytest_loraperf.units import parse_size

ROOT = Path(__file__).parents[2]
CHART = re.compile("<svg.*?</svg>", re.DOTALL)


def test_the_committed_page_is_as_it_is_made_now(tmp_path: Path) -> None:
    page, committed = tmp_path / "report.html", ROOT / "docs" / "report.html"
    results = ROOT / "benchmarks" / "h200" / "gate.json"
    run_report([results], Outputs(html=page), parse_size("24GB"), MAX_SLOWDOWN, lambda _: None)
    made, kept = (CHART.sub("<svg/>", path.read_text(encoding="utf-8")) for path in (page, committed))
    assert made == kept, "make it anew: python docs/report_image.py"
    assert made.count("<svg/>") > 5
