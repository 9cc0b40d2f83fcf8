"""The files of a report: what they need, libraries of an extra among it, and how they are written."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import replace_whole
from pytest_loraperf.writable import check_writable

LIBRARIES = ("jinja2", "vl_convert")
EXTRA = "pip install 'pytest-loraperf[report]'"


def check_page(path: Path, flag: str) -> None:
    """Refuse a page or picture that could not be drawn or written at the end.

    ``flag`` is the option that names it.

    Raises:
        LoraperfError: a library is not installed, or the file cannot be written.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise LoraperfError(f"{flag}: the report needs {' and '.join(missing)}, not installed here: {EXTRA}")
    check_writable(path, flag)


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file whole or not at all, and say in one line what is in the way.

    Raises:
        LoraperfError: it cannot be written.
    """
    try:
        replace_whole(path, text)
    except OSError as error:
        raise LoraperfError(
            f"report {path}: cannot be written: {error.strerror}; name a file in a folder that can be written"
        ) from error
