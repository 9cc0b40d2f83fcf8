"""The files of a report, and how they are written."""

from __future__ import annotations

from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import replace_whole


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
