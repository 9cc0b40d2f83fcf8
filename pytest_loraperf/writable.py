"""Files that a run is to write: refused before anything is measured rather than lost at the end, written whole."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from pytest_loraperf.options import Settings


LIBRARIES = ("jinja2", "vl_convert")
ELSEWHERE = "name a file in a folder that can be written"
EXTRA = "pip install 'pytest-loraperf[report]'"


def check_files(settings: Settings, prefix: str = "--loraperf-") -> None:
    """Refuse files that cannot be written, or that are one and the same, before anything is measured.

    ``prefix`` is how the options begin, pytest's or the command's.

    Raises:
        LoraperfError: the message names the option.
    """
    given = {f"{prefix}{name}": path for name, path in settings.files.items()}
    for flag, path in given.items():
        check_writable(path, flag)
    for path in given.values():
        same = [flag for flag, other in given.items() if other.resolve() == path.resolve()]
        if len(same) > 1:
            raise LoraperfError(f"{' and '.join(same)} name the same file; give each a file of its own")
    if settings.html is not None:
        check_page(settings.html, f"{prefix}html")


def check_writable(path: Path, flag: str = "--loraperf-json") -> None:
    """Refuse a results file before anything is measured, rather than lose it all at the end.

    ``flag`` is the option that names it.

    Raises:
        LoraperfError: the folder cannot be made, or the file cannot be written.
    """
    try:
        reason = _unwritable(Path(os.path.realpath(path)))  # what a link names, which may not be there yet
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise LoraperfError(f"{flag}={path}: cannot be written: {reason}")


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


def _unwritable(path: Path) -> str | None:
    there = path.exists()
    if there and not path.is_file():
        return "it is there and no regular file"  # a file cannot take the place of a folder or a device
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8"):
        pass
    if not there:
        path.unlink()
    with TemporaryFile(dir=path.parent):
        pass  # what is written takes the file's place from beside it, so the folder must take files too
    return None


def write_whole(path: Path, what: str, content: str | bytes, then: str = ELSEWHERE) -> None:
    """Write a file whole or not at all; folders that are missing are made, and text is written as UTF-8.

    ``what`` the file is, and ``then`` what to do or what holds, are for the message.

    Raises:
        LoraperfError: it cannot be written.
    """
    try:
        _replace(path, content)
    except OSError as error:
        raise LoraperfError(f"{what} {path}: cannot be written: {error.strerror}; {then}") from error


def _replace(path: Path, content: str | bytes) -> None:
    # Renaming over a link would take the link's place, not that of the file it names.
    path = Path(os.path.realpath(path))
    # Renaming over /dev/null, as root in a container may, would take it from every other program.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is there and no regular file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name[:40]}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()
