"""``examples/downstream_repo``: it passes its own CI, and each of its mistakes is caught by the gate that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ci_steps import read_steps
from ci_tools import ROOT, find_tool

REPO = ROOT / "examples" / "downstream_repo"
PAGE = (REPO / "README.md").read_text(encoding="utf-8")
STEPS = {step.name: step.script for step in read_steps(REPO / ".github/workflows/loraperf-cpu.yml", "cpu")}
BASELINE = "pytest --loraperf-device=cpu --loraperf-baseline=loraperf-baseline.json"
COMMANDS = {
    "lint": STEPS["Lint the order of operations"].replace("--format github ", ""),
    "forecast": STEPS["Forecast the full size"],
    "tiny": STEPS["Run the gates on the tiny model"],
    "baseline": BASELINE,
}
PAINTS = "tests/test_painter.py::test_the_picture_has_the_size"
SAID = dict(re.findall(r"^([a-z-]+ \([a-z]+\)): (.+)$", PAGE, re.MULTILINE))


@dataclass(frozen=True)
class Caught:
    """A row of the page's table, for one of the tiers that it names."""

    patch: str
    tier: str
    code: str
    at: str

    @property
    def test(self) -> str:
        """The test that fails; one that paints, where a line of source is named."""
        return self.at if "::" in self.at else PAINTS


ROWS = re.findall(
    r"^\| \[([a-z-]+)\]\(mistakes/\1\.patch\) \|[^|]+\| ([a-z, ]+) \| `(.+)` \| `(.+)` \|$", PAGE, re.MULTILINE
)
CAUGHT = [Caught(patch, tier, code, at) for patch, tiers, code, at in ROWS for tier in tiers.split(", ")]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A copy of the repository, as a user has it."""
    return shutil.copytree(REPO, tmp_path / "ghostly", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def run(repo: Path) -> Run:
    """Run a command of its CI, in a process of its own."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("CI", "GITHUB", "PYTEST"))}
    environ |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ["PATH"]]),
        "PYTEST_ADDOPTS": "-p no:randomly -p no:asyncio -p no:rerunfailures -p no:benchmark",
        "COLUMNS": "500",
        "OMP_NUM_THREADS": "1",
    }

    def ran(command: str, *more: str) -> tuple[int, str]:
        words = ["bash", "-c", f'{command} "$@"', "ci", *more]
        done = subprocess.run(words, cwd=repo, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return ran


def apply_patch(repo: Path, name: str) -> None:
    subprocess.run([find_tool("git"), "apply", REPO / "mistakes" / f"{name}.patch"], cwd=repo, check=True)


def without_numbers(text: str) -> str:
    """What is said, but for what was measured: numbers, and the layer that has least of the LoRA."""
    text = re.sub(r"transformer_blocks\.\S+,", "LAYER,", text)
    return re.sub(r"\d[\d.]*(-\d\d-\d\d)?( ?[KMG]B)?", "N", text)


@pytest.mark.parametrize("tier", ["lint", "forecast", "tiny"])
def test_without_a_mistake_its_ci_passes(run: Run, tier: str) -> None:
    status, output = run(COMMANDS[tier])
    assert status == 0, output
    if tier != "lint":
        assert re.search(r"\d+ (passed|skipped)", output)  # and something was run


@pytest.mark.parametrize(
    "caught", [c for c in CAUGHT if c.tier != "baseline"], ids=lambda c: f"{c.patch}-{c.tier}"
)
def test_a_mistake_is_caught_where_the_page_says(run: Run, repo: Path, caught: Caught) -> None:
    apply_patch(repo, caught.patch)
    status, output = run(COMMANDS[caught.tier], *([] if caught.tier == "lint" else [caught.test]))
    assert status == 1, output
    check(caught, output)


def check(caught: Caught, output: str) -> None:
    """The code and the place are those of the page, and so is what is said, but for what was measured."""
    if caught.tier == "lint":
        said = next(line for line in output.splitlines() if line.startswith(f"{caught.at}:"))
        assert f" {caught.code} " in said
    else:
        said = next(line for line in output.splitlines() if line.startswith(f"loraperf {caught.code}: "))
        assert f"FAILED {caught.test}" in output
        if caught.test != caught.at:
            assert f"  here:  {caught.at}: " in output
    assert without_numbers(SAID[f"{caught.patch} ({caught.tier})"]) == without_numbers(said)


def test_a_slower_painter_is_caught_by_the_baseline(run: Run, repo: Path) -> None:
    (caught,) = (each for each in CAUGHT if each.tier == "baseline")
    status, output = run(BASELINE, "--loraperf-update-baseline", caught.test)
    assert status == 0, output
    # The machine that runs these tests does other things too: only a factor of four is slower here.
    file = repo / "loraperf-baseline.json"
    stored = file.read_text(encoding="utf-8")
    file.write_text(stored.replace('"max_slowdown": null', '"max_slowdown": 3.0'), encoding="utf-8")
    status, output = run(BASELINE, "--loraperf-strict", caught.test)
    assert status == 0, output
    apply_patch(repo, caught.patch)
    status, output = run(BASELINE, "--loraperf-strict", caught.test)
    assert status == 1, output
    check(caught, output.replace("--loraperf-strict ", ""))


def test_the_page_tells_of_each_mistake() -> None:
    assert {f"{caught.patch}.patch" for caught in CAUGHT} == {path.name for path in (REPO / "mistakes").iterdir()}
    assert set(SAID) == {f"{caught.patch} ({caught.tier})" for caught in CAUGHT}


def test_its_tests_are_no_part_of_the_demo() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "examples"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "examples/test_lora_strategies.py::" in done.stdout
    assert "downstream_repo" not in done.stdout
