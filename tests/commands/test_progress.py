"""What a command tells of itself while it runs."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
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


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to hold")


@pytest.mark.parametrize("kind", [Line, lambda pause: Bar(4, pause)], ids=["line", "bar"])
def test_elsewhere_a_run_of_some_length_says_now_and_then_what_it_is_at(
    kind: Callable[[float], Line | Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = io.StringIO()
    monkeypatch.setattr(sys, "stderr", there)
    told = kind(0.02)
    told.tell("fused: round 1 of at most 9")
    until(lambda: "fused: round 1" in there.getvalue())
    told.tell("low_vram: offload[stream]")  # and hangs
    until(lambda: "low_vram" in there.getvalue())
    told.close() if isinstance(told, Bar) else told.tell("")
    before = threading.active_count()
    time.sleep(0.1)
    assert threading.active_count() <= before
    lines = [re.sub(r"\d+ s", "N s", line) for line in there.getvalue().splitlines()]
    assert lines == [
        "loraperf: after N s: fused: round 1 of at most 9",
        "loraperf: after N s: low_vram: offload[stream]",
    ]


def test_a_short_run_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = io.StringIO()
    monkeypatch.setattr(sys, "stderr", there)
    line = Line()
    line.tell("fused: fuse")
    line.tell("")
    assert there.getvalue() == ""


class Gone(io.StringIO):
    def isatty(self) -> bool:
        return True

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Gone(), None], ids=["gone", "none"])
def test_who_does_not_read_it_breaks_nothing(stream: Gone | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    line = Line()
    line.tell("fused: fuse")
    line.tell("")
