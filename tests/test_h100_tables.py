"""The tables of what was seen on an H100: they show what went wrong as plainly as what went well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measuring_tables import overhead_lines, workers_table
from benchmarks.vram_tables import cap_table

OUT_OF_MEMORY = 'failed on setup with "Failed: loraperf: strategy fused: out of memory while it was built: CUDA"'


def file(folder: Path, **content: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps({"command": "python made.py", **content}), encoding="utf-8")
    return path


def one(workers: int, verdict: str, overlaps: int = 0) -> dict[str, Any]:
    verdicts = {"test_a": "latency PASS", "test_b": verdict}
    return {"workers": workers, "seconds": 9.5, "verdicts": verdicts, "windows": 2, "overlaps": overlaps}


class TestWorkers:
    def test_equal_verdicts(self, tmp_path: Path) -> None:
        runs = [one(0, "latency FAIL"), one(4, "latency FAIL"), one(4, "latency FAIL")]
        assert workers_table(file(tmp_path, runs=runs)).splitlines()[2:] == [
            "| `-n 0` | 1 | 9.5 | 2 | 1 PASS, 1 FAIL | 0 |",
            "| `-n 4` | 2 | 9.5 | 2 | 1 PASS, 1 FAIL | 0 |",
            "",
            "- The verdicts of all 3 runs were the same, test by test.",
            "- `python made.py`",
        ]

    def test_a_run_that_says_something_else_and_one_with_company(self, tmp_path: Path) -> None:
        shown = workers_table(file(tmp_path, runs=[one(0, "latency FAIL"), one(4, "latency PASS", overlaps=3)]))
        assert "- The verdicts of all 2 runs were NOT THE SAME, test by test." in shown
        assert "| `-n 4` | 1 | 9.5 | 2 | 2 PASS | 3 |" in shown


def test_what_measuring_costs(tmp_path: Path) -> None:
    found = file(
        tmp_path,
        machine="H100",
        torch="2.11",
        model="synthetic:full",
        strategy="fused",
        steps=2,
        rounds=80,
        ratio=1.002,
        interval=[1.001, 1.003],
        bare_median_s=0.4323,
        decision_10000_rounds_s=0.0145,
    )
    assert overhead_lines(found).splitlines() == [
        "- H100, torch 2.11, synthetic:full, fused, 2 steps, 80 rounds in turn:",
        "  a measured generation takes 1.0020 times (95 % interval 1.0010 to 1.0030) that of a bare loop, 432.3 ms.",
        "- A decision on 10,000 rounds takes 14.50 ms.",
        "- `python made.py`",
    ]


def test_a_test_that_ends_in_another_way_is_shown_as_it_ended(tmp_path: Path) -> None:
    outcomes = {"test_on_the_card[fused]": OUT_OF_MEMORY, "test_on_the_card[low_vram]": "passed"}
    runs = [
        {"seed": 1, "outcomes": outcomes},
        {"seed": 2, "outcomes": outcomes | {"test_on_the_card[fused]": "RuntimeError: CUDA error"}},
    ]
    assert cap_table(file(tmp_path, card="14GB", runs=runs)).splitlines() == [
        "| on a card of 14GB | order 1 | order 2 |",
        "|---|---|---|",
        "| `low_vram` | passed | passed |",
        "| `fused` | out of memory, said in one line | RuntimeError: CUDA error |",
        "",
        "- `python made.py`",
    ]
