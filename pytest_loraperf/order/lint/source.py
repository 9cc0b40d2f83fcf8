"""Reading files: which ones, their text, and whether they are worth a look."""

from __future__ import annotations

import ast
import gc
import io
import os
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.order.calls import WORDS
from pytest_loraperf.order.lint.findings import Finding, unreadable

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "build", "dist", "venv", "site-packages"})
_PARSED = "future feature parsed is not defined"


def python_files(paths: Iterable[Path | str]) -> Iterator[Path]:
    """Yield the files to lint: those named, and the ``.py`` files below the folders named, each once.

    Hidden folders and those of installed packages are left out unless they are named.

    Raises:
        LoraperfError: A path that is not there.
    """
    seen: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise LoraperfError(f"{path} is not there: name files or folders to lint")
        for file in _below(path) if path.is_dir() else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in SKIPPED_FOLDERS and not each.startswith("."))
        # A link to nowhere is an editor's lock as often as not.
        yield from (file for name in sorted(files) if name.endswith(".py") and (file := Path(root, name)).exists())


def read(path: Path) -> str | Finding:
    """Return the file's text, or the finding that it has none."""
    if path.suffix == ".ipynb":
        return unreadable(
            str(path), 1, 0, "it is a notebook; lint what `jupyter nbconvert --to script` makes of it"
        )
    try:
        content = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except OSError as error:
        return unreadable(str(path), 1, 0, error.strerror or str(error))
    except (SyntaxError, UnicodeError, LookupError) as error:
        return unreadable(str(path), 1, 0, str(error))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(source: str, path: str) -> ast.Module | Finding | None:
    """Return the tree of a source, None where it mentions no word that matters, or that it cannot be parsed."""
    with _undisturbed():
        try:
            if not any(word in source for word in WORDS):
                _check_syntax(source, path)
                return None
            return ast.parse(source, path)
        except SyntaxError as error:
            return unreadable(path, error.lineno or 1, max((error.offset or 1) - 1, 0), error.msg)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            return unreadable(path, 1, 0, str(error) or "it is nested too deeply")


def _check_syntax(source: str, path: str) -> None:
    """Parse, and stop there: a tree of Python objects takes most of the time, and names need no scopes.

    The compiler looks for features of the future once the parser is done with the whole source, and before it
    does anything else; complaining about one is all that is left to do.
    """
    try:
        compile(f"from __future__ import parsed\n{source}", "<source>", "exec", dont_inherit=True)
    except SyntaxError as error:
        if error.msg != _PARSED:
            ast.parse(source, path)  # says where


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let warnings about the source alone, and the collector rest: a tree has no cycles to be found."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if enabled:
            gc.enable()
