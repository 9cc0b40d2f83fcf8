"""Linting: one source, one file, or all files below some paths."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from pytest_loraperf.order.calls import TRAINING
from pytest_loraperf.order.lint.findings import Finding, selected
from pytest_loraperf.order.lint.interpreter import Interpreter
from pytest_loraperf.order.lint.noqa import unsuppressed
from pytest_loraperf.order.lint.source import parse, python_files, read
from pytest_loraperf.order.rules import UNREADABLE


def lint_paths(
    paths: Iterable[Path | str], select: Iterable[str] = (), ignore: Iterable[str] = ()
) -> list[Finding]:
    """Lint files, and the ``.py`` files below folders; return the findings by file, line and column.

    ``select`` and ``ignore`` hold codes, ranges of codes (``LRP101-LRP109``) or their beginnings (``LRP1``).

    Raises:
        LoraperfError: A path that is not there, or a word that names no code.
    """
    codes = selected(select, ignore)
    found: list[Finding] = []
    for path in python_files(paths):
        text = read(path)
        if isinstance(text, str):
            found += lint_source(text, str(path), codes)
        elif UNREADABLE in codes:
            found.append(text)
    return sorted(found)


def lint_source(source: str, path: str, codes: Collection[str] | None = None) -> list[Finding]:
    """Return what is wrong in a source; ``path`` is how its findings name it. It never raises."""
    codes = selected() if codes is None else codes
    tree = parse(source, path)
    if tree is None:
        return []
    if isinstance(tree, Finding):
        return [tree] if UNREADABLE in codes else []
    return unsuppressed(Interpreter(tree, path, _meaningful(source, codes)).run(), source, tree)


def _meaningful(source: str, codes: Collection[str]) -> Collection[str]:
    """Return the codes without LRP102 for a file that trains: there, adapters come after quantization (QLoRA)."""
    return frozenset(codes) - {"LRP102"} if any(word in source for word in TRAINING) else codes
