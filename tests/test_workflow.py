"""Workflow commands, read back by the rules of GitHub's runner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.workflow import command, is_on, no_command

REGISTERED = ("error", "warning", "notice", "debug", "add-mask", "stop-commands", "group")


def parsed(line: str) -> tuple[str, dict[str, str], str] | None:
    """What the runner reads a line as: a command's name, properties and message, or None for plain output."""
    text = line.lstrip()
    end = text.find("::", 2)
    if not text.startswith("::") or end < 0:
        return None
    name, _, given_ = text[2:end].partition(" ")
    if name not in REGISTERED:
        return None
    pairs = (each.split("=", 1) for each in given_.strip().split(",") if each)
    properties = {pair[0]: _unescaped(pair[1], ":,") for pair in pairs if len(pair) == 2 and pair[1]}
    return name, properties, _unescaped(text[end + 2 :], "")


def _unescaped(text: str, more: str) -> str:
    for letter in f"\r\n{more}%":
        text = text.replace(f"%{ord(letter):02X}", letter)
    return text


def test_a_command_as_it_is_written() -> None:
    line = command("error", "100 % lost: a, b\r\nc", file="a:b,c%.py", line=3, title=None)
    assert line == "::error file=a%3Ab%2Cc%25.py,line=3::100 %25 lost: a, b%0D%0Ac"
    assert command("warning", "plain") == "::warning::plain"


# The runner takes off the spaces around the properties, and passes over an empty one.
property_text = st.text().map(str.strip).filter(bool)


@given(property_text, property_text, st.text())
def test_whatever_is_put_in_comes_out_again(file: str, title: str, message: str) -> None:
    line = command("error", message, file=file, line=7, title=title)
    assert "\n" not in line
    assert "\r" not in line
    assert parsed(line) == ("error", {"file": file, "line": "7", "title": title}, message)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::error::pwned", ": :error::pwned"),
        ("  ::add-mask::secret", "  : :add-mask::secret"),
        ("\u00a0::error::pwned", "\u00a0: :error::pwned"),
        ("a ##[error]pwned", "a ## [error]pwned"),
        ("test_a.py::test_b is fine", "test_a.py::test_b is fine"),
        ("", ""),
    ],
)
def test_a_line_that_is_no_command(line: str, shown: str) -> None:
    assert no_command(line) == shown


@given(st.text(alphabet=[" ", "\u00a0", "\t", ":", "#", "[", "e"], max_size=12))
def test_no_line_is_a_command(line: str) -> None:
    shown = no_command(line)
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown


@pytest.mark.parametrize(
    ("mode", "variable", "on"),
    [
        ("auto", "true", True),
        ("auto", "false", False),
        ("auto", None, False),
        ("on", None, True),
        ("off", "true", False),
    ],
)
def test_when_to_write_for_github(mode: str, variable: str | None, on: bool) -> None:
    assert is_on(mode, {} if variable is None else {"GITHUB_ACTIONS": variable}) == on
