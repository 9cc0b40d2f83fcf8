"""What ``loraperf lint`` prints and changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.order.lint.command import run_lint

SLOW = "pipe.enable_vram_management(enable_dit_fp8_computation=True)\npipe.load_lora(pipe.dit, path)\n"
FAST = "pipe.load_lora(pipe.dit, path)\npipe.enable_vram_management(enable_dit_fp8_computation=True)\n"


def run(
    path: Path, *, select: tuple[str, ...] = (), output_format: str = "text", fix: bool = False
) -> tuple[bool, list[str], list[str]]:
    written: list[str] = []
    told: list[str] = []
    found = run_lint([path], select, (), output_format, fix=fix, write=written.append, tell=told.append)
    return found, written, told


def test_findings_are_printed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    found, written, told = run(tmp_path)
    assert found
    assert written[-1] == "1 finding in 1 file"
    assert told == []


def test_nothing_found_prints_nothing_but_an_empty_list_in_json(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FAST)
    assert run(tmp_path) == (False, [], [])
    assert run(tmp_path, output_format="json") == (False, ["[]"], [])


def test_fixed_files_are_named_and_what_is_left_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(SLOW)
    assert run(tmp_path, fix=True) == (False, [], [f"fixed 1 in {file}; look at the changes"])
    assert file.read_text() == FAST
    assert run(tmp_path, fix=True) == (False, [], [])


def test_nothing_is_changed_where_a_code_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(SLOW)
    with pytest.raises(LoraperfError, match="'LRP9' is no code"):
        run(tmp_path, select=("LRP9",), fix=True)
    assert file.read_text() == SLOW
