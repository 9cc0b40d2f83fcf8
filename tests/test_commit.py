"""The commit that a run was made at."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_loraperf.commit import current_commit


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A. Tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
        monkeypatch.setenv(f"GIT_{role}_DATE", "2026-01-02T03:04:05+00:00")
    (folder / "a.txt").write_text("a")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "a.txt")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_of_a_branch(repository: Path) -> None:
    found = current_commit(repository)
    assert found is not None
    assert found.id == git(repository, "rev-parse", "HEAD")
    assert (found.project, found.branch, found.dirty) == ("project", "main", False)
    assert found.time == found.author_time
    assert found.time.startswith("2026-01-02T03:04:05")


def test_of_a_detached_head_with_changes(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    (repository / "a.txt").write_text("b")
    found = current_commit(repository)
    assert found is not None
    assert (found.branch, found.dirty) == ("(detached head)", True)


def test_where_there_is_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_commit(repository.parent) is None
    assert current_commit(repository / "nowhere") is None
    monkeypatch.setenv("PATH", "")
    assert current_commit(repository) is None
