"""The README's examples are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pytest_loraperf.backends.diffsynth
import pytest_loraperf.run.gathering
import pytest_loraperf.run.judging
import pytest_loraperf.run.race  # noqa: F401 - torch can be imported only once, and inner runs share this process
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.options import OPTIONS
from pytest_loraperf.strategies import NO_LORA, SHIPPED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (\w+\.py)[^\n]*\n(.*?)```", README, re.DOTALL)


def test_every_example_passes_as_it_stands(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str] = {}
    for name, code in BLOCKS:
        files[name] = files.get(name, "") + code
    for name, code in files.items():
        pytester.path.joinpath(name).write_text(code, encoding="utf-8")
    assert set(files) == {"conftest.py", "test_ghost_lora.py", "test_markers.py"}
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -o asyncio_default_fixture_loop_scope=function")
    result = pytester.runpytest("--loraperf-device=cpu", "--strict-markers")
    result.assert_outcomes(passed=18, skipped=1)


@pytest.mark.parametrize("name", [option.flag for option in OPTIONS] + list(MARKERS))
def test_every_option_and_marker_is_shown(name: str) -> None:
    assert f"`{name}`" in README or f"pytest.mark.{name}(" in README


@pytest.mark.parametrize("strategy", [*SHIPPED, NO_LORA])
def test_every_strategy_is_shown_with_its_steps(strategy: object) -> None:
    name = getattr(strategy, "name", "")
    steps = " → ".join(step.kind for step in getattr(strategy, "steps", ()))
    assert f"| `{name}` | {steps} |" in README.replace("|  |", "| |").replace(f"`{name}` | |", f"`{name}` |  |")


def test_the_linted_example_says_what_is_shown(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n# src/build.py\n(.*?)```", README, re.DOTALL)
    ((command, shown),) = re.findall(
        r"```text\n\$ pytest ([^\n]*--loraperf-lint [^\n]*)\n(.*?)\n```", README, re.DOTALL
    )
    (pytester.path / "src").mkdir()
    (pytester.path / "src/build.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CI", raising=False)  # where it is set, pytest cuts no line
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:asyncio")
    result = pytester.runpytest(*command.split())
    seconds = re.compile(r" in [0-9.]+s$")
    assert [seconds.sub("", line) for line in result.outlines] == seconds.sub("", shown).splitlines()


def test_the_measured_blocks_are_those_of_the_committed_results() -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "benchmarks.readme", "--check"]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == 0
