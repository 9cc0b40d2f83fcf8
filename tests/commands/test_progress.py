"""The bar of a command."""

from __future__ import annotations

import io
import sys

import pytest

from pytest_loraperf.commands.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(4)
    progress.tell("fused: round 2 of at most 9")
    progress.done()
    progress.close()
    progress.close()
    return stream.getvalue()


def test_a_terminal_shows_how_far_it_is_and_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, Terminal())
    assert "fused: round 2 of at most 9" in said
    assert "0/4" in said


def test_elsewhere_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()) == ""
