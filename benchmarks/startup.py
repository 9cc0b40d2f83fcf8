"""Measure what the merely installed plugin costs a test run that does not use it.

Two arms collect a project of one trivial test with ``python -m pytest --co -q``, turn about, each run a new
process:

- ``base``: pytest with pytest-loraperf blocked (``-p no:loraperf``);
- ``with``: the same, not blocked.

Both load plugins the way an installed one is loaded, through its entry point, so both pay for pytest's search
of the installed distributions. Every other plugin found there is blocked in both: it would add noise, and may
already have imported what this one imports. Noise only ever adds time, so an arm's figure is its minimum.

Exit status: 0 within the limits, 1 over one of them, 2 nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = "loraperf"
ROUNDS = 50
ADDED_LIMIT_MS = 15.0
HEAVY = ("torch", "numpy", "diffsynth", "scipy", "safetensors", "pynvml", "wrapt")
UNWANTED_SETTINGS = ("PYTEST_", "PYTHONDONTWRITEBYTECODE")  # they change what is loaded, or how fast

IMPORT_LISTER = """
import json, pathlib, sys

def pytest_unconfigure():
    pathlib.Path("modules.json").write_text(json.dumps(list(sys.modules)))
"""


class NothingMeasuredError(Exception):
    """A run failed, or the plugin is not installed; the message is for the user."""


@dataclass(frozen=True)
class Startup:
    """Times of a whole pytest process in milliseconds, and the heavy modules found loaded at its end."""

    base_ms: float
    with_ms: float
    added_ms: float
    heavy_imports: list[str]

    def is_within_limits(self) -> bool:
        """Tell whether the added time is within ADDED_LIMIT_MS and nothing heavy was imported."""
        return self.added_ms <= ADDED_LIMIT_MS and not self.heavy_imports


def other_plugins() -> list[str]:
    """Return the entry point names of the installed pytest plugins but this one.

    Raises:
        NothingMeasuredError: this one is not installed.
    """
    names = {entry.name for entry in entry_points(group="pytest11")}
    if PLUGIN not in names:
        raise NothingMeasuredError("pytest-loraperf is not installed here; run: pip install -e .")
    return sorted(names - {PLUGIN})


def run_pytest(project: Path, *arguments: str) -> float:
    """Return the seconds that one new pytest process takes to collect the project.

    Raises:
        NothingMeasuredError: pytest did not exit with 0; the message is what it printed.
    """
    command = [sys.executable, "-m", "pytest", "--co", "-q", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(UNWANTED_SETTINGS)}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise NothingMeasuredError(
            f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return seconds


def heavy_imports(project: Path, *arguments: str) -> list[str]:
    """Return those of HEAVY that are loaded when pytest is unconfigured."""
    (project / "import_lister.py").write_text(IMPORT_LISTER)
    run_pytest(project, "-p", "import_lister", *arguments)
    loaded = json.loads((project / "modules.json").read_text())
    return [name for name in HEAVY if name in loaded]


def measure(project: Path) -> Startup:
    """Measure both arms in an empty folder; the first round, which fills the bytecode cache, is left out."""
    (project / "test_trivial.py").write_text("def test_trivial():\n    assert True\n")
    ours_only = [word for name in other_plugins() for word in ("-p", f"no:{name}")]
    none = [*ours_only, "-p", f"no:{PLUGIN}"]
    rounds = [(run_pytest(project, *none), run_pytest(project, *ours_only)) for _ in range(ROUNDS + 1)]
    base_ms, with_ms = (min(seconds) * 1000 for seconds in zip(*rounds[1:], strict=True))
    return Startup(
        base_ms=round(base_ms, 2),
        with_ms=round(with_ms, 2),
        added_ms=round(with_ms - base_ms, 2),
        heavy_imports=heavy_imports(project, *ours_only),
    )


def main() -> int:
    """Measure, print, write the JSON where asked, and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Measure what the merely installed plugin adds to pytest's start."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            startup = measure(Path(folder))
    except NothingMeasuredError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 2
    imports = ", ".join(startup.heavy_imports) or "none"
    print(f"pytest --co -q, min of {ROUNDS}: {startup.base_ms} ms without, {startup.with_ms} ms with the plugin")
    print(f"added: {startup.added_ms} ms, {ADDED_LIMIT_MS} ms allowed; heavy imports: {imports}, none allowed")
    if options.json:
        options.json.write_text(json.dumps(asdict(startup), indent=2) + "\n")
    return 0 if startup.is_within_limits() else 1


if __name__ == "__main__":
    sys.exit(main())
