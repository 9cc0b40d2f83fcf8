"""A run in Markdown, and how it is cut to what GitHub shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import EIGHT

from pytest_loraperf.report.markdown import markdown_table
from pytest_loraperf.report.results import VerdictRecord
from pytest_loraperf.report.step_summary import LIMIT, append_summary, fitting, run_markdown

CUT = "\n… {} more lines: GitHub shows no summary of a step over 1 MiB\n"


def test_a_whole_run() -> None:
    tight = VerdictRecord(
        nodeid="test_a.py::test_t", code="vram", status="PASS", message="fits", tighter='vram_budget("1GB")'
    )
    text = run_markdown(replace(EIGHT, verdicts=(*EIGHT.verdicts, tight)))
    assert text == (
        r"""
### pytest-loraperf: 2 failed, 2 cannot tell, 1 skipped, 3 passed

| test | gate | verdict | found |
| --- | --- | --- | --- |
| `test_a.py::test_q` | equivalence | FAIL | the LoRA has faded |
| `test_a.py::test_any` | gpu-budget | FAIL | over the budget |
| `test_a.py::test_small[low_vram]` | vram | INCONCLUSIVE | cannot tell |
| `test_a.py::test_q` | vram | INCONCLUSIVE | cannot tell |
| `test_a.py::test_s` | latency | SKIPPED | no GPU |
| `test_a.py::test_fast[fused]` | latency | PASS | fused took 863.0 ms |
| `test_a.py::test_fast[low_vram]` | latency | PASS | in time |
| `test_a.py::test_t` | vram | PASS | fits |

""".lstrip()
        + markdown_table(EIGHT)
        + '\n\n- `test_a.py::test_t` passed its vram gate by far; it could be: `vram_budget("1GB")`\n- 7 rounds of each'
    )


def test_a_run_with_nothing_but_a_race() -> None:
    assert run_markdown(replace(EIGHT, strategies={}, verdicts=(), notes=())) == "### pytest-loraperf: no verdict"


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("of another command\n")
    append_summary(path, "é\nb")
    assert path.read_text(encoding="utf-8") == "of another command\n\né\nb\n"


def test_what_is_too_large_is_cut_at_a_line_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (LIMIT - 200))
    append_summary(path, "\n".join(["12345678"] * 100))
    added = path.read_bytes()[LIMIT - 200 :].decode()
    kept = added.count("12345678\n")
    assert added == "\n" + "12345678\n" * kept + CUT.format(100 - kept)
    assert len(added.encode()) in range(200 - 9, 201)


def test_where_not_even_a_line_fits_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (LIMIT - 20))
    append_summary(path, "\n".join(["12345678"] * 100))
    assert path.stat().st_size == LIMIT - 20


@pytest.mark.parametrize("room", [-5, 0, 3, 70, 71, 72, 100, 1000])
def test_it_always_fits(room: int) -> None:
    assert len(fitting("…\n" * 20, room)) <= max(room, 0)
