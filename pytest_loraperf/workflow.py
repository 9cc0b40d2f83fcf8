"""GitHub's workflow commands: lines of output that its runner takes for orders.

Written so that no text breaks out of one, and taken from lines that are not meant as one. The escapes and where a
command begins are those of the runner's own parser (actions/runner, ``ActionCommand.cs``).
"""

from __future__ import annotations

from collections.abc import Mapping

SHOWN = 10
"""Annotations of a kind that GitHub keeps of one step."""
LONGEST_MESSAGE = 4096
"""Characters of an annotation's message that the runner passes on."""
LONGEST_TITLE = 255
"""Characters of an annotation's title that GitHub takes."""
OPENINGS = ("::", "##[")


def command(name: str, message: str, **properties: object) -> str:
    """Return one command, such as ``::error file=a.py,line=3::message``; a property that is None is left out."""
    given = ",".join(f"{key}={_property(str(each))}" for key, each in properties.items() if each is not None)
    return f"::{name}{' ' if given else ''}{given}::{_data(message)}"


def no_command(line: str) -> str:
    """Return a line of output with a space in whatever the runner would take for the beginning of a command."""
    start, brackets = OPENINGS
    line = line.replace(brackets, "## [")
    text = line.lstrip()
    return f"{line[: len(line) - len(text)]}: :{text[len(start) :]}" if text.startswith(start) else line


def is_on(mode: str, environ: Mapping[str, str]) -> bool:
    """Whether to write for GitHub: ``auto`` does so where one of its runners runs this."""
    return mode == "on" or (mode == "auto" and environ.get("GITHUB_ACTIONS") == "true")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
