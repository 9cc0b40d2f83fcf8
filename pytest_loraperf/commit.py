"""The commit that a run was made at, as git tells it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0
"""A repository on a slow disk may take longer to look through; what it says is then left out."""


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out; ``dirty`` where files that git knows differ from it. Times are ISO 8601.

    ``branch`` is "(detached head)" where no branch is checked out.
    """

    id: str
    time: str
    author_time: str
    dirty: bool
    project: str
    branch: str


def current_commit(folder: Path) -> Commit | None:
    """Return the commit checked out in the folder, or None where git tells of none."""
    told = _git(folder, "log", "-1", "--format=%H%n%cI%n%aI")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    top = _git(folder, "rev-parse", "--show-toplevel")
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    if told is None or changes is None or top is None or branch is None:
        return None
    commit, time, author_time = told.split()
    named = "(detached head)" if branch == "HEAD" else branch
    return Commit(commit, time, author_time, bool(changes), Path(top).name, named)


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            command, cwd=folder, capture_output=True, check=True, timeout=SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
