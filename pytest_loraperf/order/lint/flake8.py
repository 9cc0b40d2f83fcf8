"""The linter as a flake8 plugin: the same findings, reported by flake8."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import ClassVar, Protocol

from pytest_loraperf.order.lint.findings import EVERY
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.rules import DEFAULT, UNREADABLE


class OptionManager(Protocol):
    """What flake8 hands over to add options to."""

    def extend_default_ignore(self, error_codes: Sequence[str]) -> None:
        """Ignore these codes unless they are asked for."""


class Flake8Plugin:
    """Yields the findings of one file; flake8 selects among them, and heeds ``# noqa`` by itself.

    flake8 parses the file before it calls a plugin, and reports by itself one that cannot be parsed (E999).
    """

    name: ClassVar[str] = "pytest-loraperf"
    version: ClassVar[str] = version("pytest-loraperf")
    off_by_default: ClassVar[bool] = False

    @classmethod
    def add_options(cls, option_manager: OptionManager) -> None:
        """Leave what is advice to those who ask for it, as ``loraperf lint`` does."""
        option_manager.extend_default_ignore(sorted(set(EVERY) - DEFAULT - {UNREADABLE}))

    def __init__(self, tree: ast.AST | None, filename: str, lines: Sequence[str]) -> None:  # noqa: ARG002 - flake8 asks for plugins with a tree
        self._filename = filename
        self._source = "".join(lines)

    def run(self) -> Iterator[tuple[int, int, str, type[Flake8Plugin]]]:
        """Yield line, column, text and plugin of each finding."""
        for each in lint_source(self._source, self._filename, EVERY):
            yield each.line, each.col, f"{each.code} {each.message}", type(self)
