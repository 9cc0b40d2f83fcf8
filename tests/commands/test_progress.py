"""What a command tells of itself while it runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from pytest_loraperf.commands.progress import Bar, Line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    there = Terminal()
    monkeypatch.setattr(sys, "stderr", there)
    return there


def test_a_terminal_shows_how_far_it_is_and_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    there = terminal(monkeypatch)
    bar = Bar(4)
    bar.tell("fused: round 2 of at most 9")
    bar.done()
    bar.close()
    bar.close()
    assert "fused: round 2 of at most 9" in there.getvalue()
    assert "0/4" in there.getvalue()


def test_a_line_of_a_terminal_takes_the_place_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    there = terminal(monkeypatch)
    line = Line()
    line.tell("fused: fuse")
    line.tell("")
    assert there.getvalue() == "\r\x1b[Kloraperf: fused: fuse\r\x1b[K"


@pytest.mark.parametrize("kind", [Line, lambda clock: Bar(4, clock)])
def test_elsewhere_a_run_of_some_length_says_now_and_then_what_it_is_at(
    kind: Callable[[Callable[[], float]], Line | Bar], capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0, 0, 9.9, 10, 19, 40, 40])
    told = kind(lambda: next(times))
    told.tell("fused: fuse")
    told.tell("fused: warming up")
    assert capsys.readouterr() == ("", "")
    told.tell("fused: round 1 of at most 9")
    told.tell("fused: round 2 of at most 9")
    told.tell("")
    told.tell("fused: round 3 of at most 9")
    assert capsys.readouterr().err.splitlines() == [
        "loraperf: after 10 s: fused: round 1 of at most 9",
        "loraperf: after 40 s: fused: round 3 of at most 9",
    ]
