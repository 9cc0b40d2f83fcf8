"""The files of a calibration: JSON of one frozen dataclass, with its schema and its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.schema import from_plain, parse_json, to_plain
from pytest_loraperf.writable import write_whole

SCHEMA = 1


def write_file(path: Path, kind: str, value: Any) -> None:
    """Write a dataclass whole or not at all; folders that are missing are made.

    Raises:
        LoraperfError: it cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, "kind": kind, **to_plain(value)}, indent=1, allow_nan=False) + "\n"
    write_whole(path, kind, text)


def read_file(path: Path, kind: str, cls: type) -> Any:
    """Read what ``write_file`` wrote of this class.

    Raises:
        LoraperfError: it is missing, truncated, no JSON, of another schema or kind, or holds a wrong value.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        _check(data, kind)
        return from_plain(cls, data, kind)
    except LoraperfError as error:
        raise LoraperfError(f"{kind} {path}: {error}") from error
    except OSError as error:
        raise LoraperfError(f"{kind} {path}: cannot be read: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise LoraperfError(f"{kind} {path}: no JSON, or truncated ({error}); make it again") from error


def _check(data: object, kind: str) -> None:
    if not isinstance(data, dict):
        return  # reading its fields says so
    for key, value in {"schema": SCHEMA, "kind": kind}.items():
        found = data.get(key)
        # True equals 1, and is no schema.
        if found != value or isinstance(found, bool):
            raise LoraperfError(
                f"{key} is {json.dumps(found, default=repr)}, this version reads {json.dumps(value)}; "
                "make it again with this version of loraperf calibrate"
            )
