"""How errors are told in one line."""

from __future__ import annotations

import pytest

from pytest_loraperf.errors import UnitError, said


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnitError("found 3 stone, allowed are GB"), "found 3 stone, allowed are GB"),
        (ValueError("bad\nand more"), "ValueError: bad"),
        (KeyError("dit"), "KeyError: 'dit'"),
        (StopIteration(), "StopIteration"),
        (AssertionError("  \n "), "AssertionError"),
    ],
)
def test_an_error_is_said_in_one_line(error: Exception, line: str) -> None:
    assert said(error) == line


def test_one_without_a_text_is_said_with_the_line_that_raised_it() -> None:
    with pytest.raises(StopIteration) as raised:
        next(iter(()))
    assert said(raised.value) == f"StopIteration (test_errors.py:{raised.traceback[-1].lineno + 1})"
