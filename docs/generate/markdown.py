"""Markdown from docstrings and rows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

WRITTEN = "<!-- Written by docs/reference.py; change {} instead. -->"


def page(title: str, source: str, *parts: str) -> str:
    """Return a page; ``source`` is what it is made from."""
    return "\n\n".join([WRITTEN.format(source), f"# {title}", *(part for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what would end a cell is escaped."""
    lines = (head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str, language: str = "python") -> str:
    """Return a block of code."""
    return f"```{language}\n{text}\n```"


def prose(documented: Any) -> str:
    """Return a docstring as Markdown: its paragraphs, and what it says of arguments, results and errors."""
    text = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(documented) or "", flags=re.DOTALL)
    paragraphs, _, sections = text.partition("\n\nArgs:\n")
    for title in ("Returns", "Raises"):
        before, found, after = paragraphs.partition(f"\n\n{title}:\n")
        paragraphs = before + (f"\n\n{title}: {' '.join(_entries(after))}" if found else "")
    assert not sections, f"{documented}: arguments are explained in the text"
    return paragraphs


def _entries(section: str) -> list[str]:
    """Return the entries of a section, each in one line, with the name of an error in code."""
    entries = re.split(r"\n(?=    \S)", "\n" + section)[1:]
    lines = [" ".join(entry.split()) for entry in entries]
    return [re.sub(r"^(\w+Error): (.*?)\.?$", r"`\1`: \2.", line) for line in lines]


class Shown(str):
    """A text that stands as it is in a signature, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, function: Any, *, bound: bool = False) -> str:
    """Return how a function is called, as its source has it; ``bound`` leaves out the first parameter."""
    found = inspect.signature(function)
    parameters = [
        each.replace(annotation=_shown(each.annotation), default=_default(each.default))
        for each in [*found.parameters.values()][bound:]
    ]
    result = inspect.Signature.empty if inspect.isclass(function) else _shown(found.return_annotation)
    return f"{name}{found.replace(parameters=parameters, return_annotation=result)}"


def _shown(annotation: Any) -> Any:
    return Shown(annotation) if isinstance(annotation, str) else annotation


def _default(value: Any) -> Any:
    if isinstance(value, Enum):
        return Shown(value)
    return value if value is inspect.Parameter.empty or not repr(value).startswith("<") else Shown("...")
