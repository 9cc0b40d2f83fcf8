"""``benchmarks/h100/run libraries``: what it measures of each library, tried on the tiny model on the CPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.readme
from benchmarks.readme import Block
from pytest_loraperf.report.claims import REPORTED
from pytest_loraperf.report.results import read_results

ROOT = Path(__file__).parents[1]
STUB = '#!/bin/sh\nfor word in "$@"; do last=$word; done\nmkdir -p "$(dirname "$last")"\necho "$@" >"$last"\n'
NOT_RUN = (
    "libraries-diffsynth1: not run: set DIFFSYNTH1_PYTHON to the Python of an environment with DiffSynth 1.1, "
    "such as .venv-diffsynth1/bin/python (make test-diffsynth1)"
)


def run(out: Path, programs: Path, **variables: str) -> list[str]:
    """Run the step with the programs of a folder first on the path, and return its lines."""
    environment = {name: value for name, value in os.environ.items() if name != "DIFFSYNTH1_PYTHON"}
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "RESULTS": str(out), **variables}
    command = ["bash", "benchmarks/h100/run", "libraries"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_each_library_is_asked_the_same(tmp_path: Path) -> None:
    stub = program(tmp_path / "bin", "loraperf", STUB)
    lines = run(tmp_path, stub.parent, DIFFSYNTH1_PYTHON=str(stub))
    assert [line.partition(",")[0] for line in lines] == [
        f"libraries-{run}: exit 0"
        for run in ("diffsynth", "diffusers", "diffsynth1", "diffsynth1-low_vram", "diffsynth1-low_vram_optimized")
    ]
    asked = {}
    for file in tmp_path.glob("libraries-*.json"):
        name, words = file.stem.removeprefix("libraries-"), file.read_text(encoding="utf-8")
        asked[name] = words.replace(str(file), "")
    seven = list(REPORTED)
    assert asked == {
        "diffsynth": bench("diffsynth", seven, "30s"),
        "diffusers": bench("diffusers", seven, "30s"),
        "diffsynth1": f"-m pytest_loraperf.cli {bench('diffsynth1', seven[:5], '10s')}",
        **{
            f"diffsynth1-{name}": f"-m pytest_loraperf.cli {bench('diffsynth1', [name], '10s')}"
            for name in seven[5:]
        },
    }


def bench(backend: str, strategies: Sequence[str], seconds: str) -> str:
    return (
        f"bench --backend {backend} --model synthetic:full --strategies {','.join(strategies)} --limits --steps 2 "
        f"--rounds 9 --max-seconds {seconds} --json \n"
    )


def test_without_diffsynth1_it_says_what_to_set(tmp_path: Path) -> None:
    stub = program(tmp_path / "bin", "loraperf", STUB)
    assert run(tmp_path, stub.parent)[-1] == NOT_RUN
    assert not (tmp_path / "libraries-diffsynth1.json").exists()


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("diffsynth", "diffusers", "peft", "accelerate")),
    reason="a library is not installed",
)
def test_its_results_make_the_page_s_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loraperf = f'#!/bin/sh\nexec "{sys.executable}" -m pytest_loraperf.cli "$@" --device=cpu\n'
    out = tmp_path / "benchmarks" / "h200"
    lines = run(out, program(tmp_path / "bin", "loraperf", loraperf).parent, MODEL="synthetic:tiny")
    assert [line.partition(",")[0] for line in lines[:2]] == [
        "libraries-diffsynth: exit 0",
        "libraries-diffusers: exit 0",
    ]
    for file in out.iterdir():
        measured = read_results(file).strategies
        assert all(len(measured[name].samples_s) == 9 for name in REPORTED)

    page = "docs/explanation/libraries.md"
    (tmp_path / page).parent.mkdir(parents=True)
    shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(benchmarks.readme, "ROOT", tmp_path)
    monkeypatch.setattr(benchmarks.readme, "BLOCKS", (_block(),))
    (text,) = benchmarks.readme.rendered().values()
    shown = text.partition("<!-- loraperf:libraries -->\n")[2].partition("\n<!-- /loraperf:libraries -->")[0]
    assert shown.startswith("| strategy | reported | diffsynth 2.")
    assert "| reported | diffsynth 2." in shown
    assert all(f"| `{name}` |" in shown for name in REPORTED)


def _block() -> Block:
    """Return the page's block with the two libraries that this environment has."""
    (block,) = [block for block in benchmarks.readme.BLOCKS if block.name == "libraries"]
    return replace(block, files=tuple(file for file in block.files if "diffsynth1" not in file))
