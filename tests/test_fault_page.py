"""The page of the fault matrix is that of its tests, and has every fault that is promised."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "faults.py"
PAGE = ROOT / "docs" / "faults.md"
ROWS = re.findall(
    r"^\| ([^|*]+) \| ([^|]+) \| ([^|]+) \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)
PROMISED = {
    "SIGKILL of the run": {"measuring", "writing the results", "writing the baseline"},
    "SIGKILL of a worker": {"measuring", "sending what it measured"},
    "SIGKILL of the controller of workers": {"measuring"},
    "KeyboardInterrupt": {"measuring", "writing the results", "measuring, with workers"},
    "disk full": {"writing the results", "writing the baseline"},
    "read-only folder": {"measuring"},
    "two sessions update one baseline": {"writing the baseline"},
    "the clock goes back": {"measuring"},
    "NVML vanishes": {"measuring"},
    "out of memory": {"set-up of a test", "measuring", "teardown of a test"},
}


def run(script: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, script, *arguments], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_page_is_up_to_date_and_a_stale_one_is_named(tmp_path: Path) -> None:
    assert run(SCRIPT, "--check") == (0, "")
    folder = tmp_path / "docs"
    (tmp_path / "tests").mkdir()
    folder.mkdir()
    script = Path(shutil.copy(SCRIPT, folder))
    shutil.copytree(ROOT / "tests" / "faults", tmp_path / "tests" / "faults")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert run(script, "--check") == (1, "stale: faults.md; run: python docs/faults.py\n")
    assert run(script) == (0, "")
    assert (folder / "faults.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", PROMISED)
def test_what_is_promised_has_a_row_with_cases(fault: str) -> None:
    assert PROMISED[fault] <= {when for what, when, _, count in ROWS if what == fault and int(count) > 0}


def test_every_test_of_the_matrix_says_which_case_it_is() -> None:
    files = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    assert files
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert "mark.fault(" in source, file.name


def test_the_readme_leads_to_it() -> None:
    assert "(docs/faults.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
