"""The tables of what was seen on a GPU: they show what went wrong as plainly as what went well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measuring_tables import overhead_lines, workers_table
from benchmarks.vram_tables import cap_table, offload_table

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


def test_offloading_by_card_and_the_seconds_of_set_up(tmp_path: Path) -> None:
    timed = {"s": 1.2, "bitwise_equal": True}
    limit = {**timed, "kept": 10, "blocks": 60, "reserved": 5 * 2**30, "of_bound": 0.986}
    found = {
        "device": "H200",
        "torch": "2.11",
        "bandwidth": {"to_device": 55e9},
        "fused_then_quantize": {"s": 1.08},
        "low_vram_optimized": {**timed, "set_up": {"all": 4.0}},
        "low_vram": {**timed, "bitwise_equal": False, "set_up": {"all": 2.0}},
        "pinning": {"s": 2.9, "torch_s": 10.0, "torch_again_s": 8.0},
        "limit_12": {**limit, "s": 1.1},
        "limit_6": limit,
        "diffusers_block_level": {"s": 1.6, "reserved": 2**30},
    }
    assert offload_table(file(tmp_path, **found)).splitlines()[2:] == [
        "| 6 GB | 1.200 s | 99% | 10 of 60 | 5 GB |",
        "| 12 GB | 1.100 s | 99% | 10 of 60 | 5 GB |",
        "",
        "- H200, torch 2.11: 55.0 GB/s from pinned memory (decimal).",
        "- What bounds a generation is the larger of what is moved over that, and the 1.080 s that it takes with all weights",
        "  on the device.",
        "- As the strategies have it: `low_vram_optimized` for 6 GB 1.200 s, `low_vram` for 8 GB 1.200 s.",
        "- diffusers' group offloading of the same weights, a block at a time with a stream: 1.600 s,",
        "  1 GB reserved.",
        "- Set-up of `low_vram_optimized` in host memory not touched before: 4.000 s; of `low_vram`, later:",
        "  2.000 s. Torch's `pin_memory` takes 10.00 s for the same blocks, and then",
        "  8.000 s: 0.40 and 0.25 of it.",
        "- The step pins by several threads. That alone, in memory not touched before: 2.900 s.",
        "- Every output was bit for bit that of resident weights: NO.",
        "- `python made.py`",
    ]
