"""Programs on the PATH that do nothing but write down what they are called with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NAMES = ("python", "python3", "pytest", "loraperf", "gh")
# Stands for a program: writes down what it was called with, and ends as the file STATUS-NAME says.
STAND_IN = r"""#!/bin/bash
{{ printf '%s\x1f' "${{0##*/}}" "$@"; printf '\x1e'; }} >>'{folder}/calls'
[[ ! -e {folder}/status-${{0##*/}} ]] || exit "$(<"{folder}/status-${{0##*/}}")"
"""


@dataclass(frozen=True)
class StandIns:
    """Programs on the PATH that do nothing but write down what they are called with."""

    folder: Path
    environ: dict[str, str]

    def fail(self, name: str, status: int) -> None:
        (self.folder / f"status-{name}").write_text(str(status))

    def calls(self, name: str) -> list[list[str]]:
        file = self.folder / "calls"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        called = [each.split("\x1f")[:-1] for each in text.split("\x1e")[:-1]]
        return [words for program, *words in called if program == name]


def make_stand_ins(folder: Path) -> StandIns:
    """Make stand-ins for all that the CI files call."""
    folder.mkdir()
    for name in NAMES:
        program = folder / name
        program.write_text(STAND_IN.format(folder=folder), encoding="utf-8")
        program.chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return StandIns(folder, {**os.environ, "PATH": path, "GITHUB_ACTION_PATH": "/actions/loraperf"})
