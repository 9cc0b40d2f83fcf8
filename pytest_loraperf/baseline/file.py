"""The baseline's file: JSON that merges well in git, read strictly, replaced whole, under a lock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pytest_loraperf.baseline.golden import Golden
from pytest_loraperf.baseline.record import Baseline, Record
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.schema import from_plain, parse_json, to_plain
from pytest_loraperf.writable import write_whole

SCHEMA = 1
LOCK_SECONDS = 60.0
Kind = TypeVar("Kind", Record, Golden)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline; a file that is not there is an empty one.

    Raises:
        LoraperfError: it cannot be read, is no JSON, of another schema, has a record twice, or one that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Baseline()
    except (OSError, UnicodeDecodeError) as error:
        raise LoraperfError(f"baseline {path}: cannot be read: {error}; check the path") from error
    try:
        return _from_json(parse_json(text))
    except LoraperfError as error:
        raise LoraperfError(f"baseline {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise LoraperfError(
            f"baseline {path}: no JSON, truncated, or a merge that was left half done ({error}); "
            "mend it, or take it from git again"
        ) from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file whole or not at all.

    Raises:
        LoraperfError: it cannot be written.
    """
    write_whole(path, "baseline", baseline_text(baseline), "nothing was changed")


def update_baseline(path: Path, change: Callable[[Baseline], Baseline], wait: float = LOCK_SECONDS) -> None:
    """Read, change and write the file under a lock, so that of two runs at once neither loses the other's records.

    The lock is a file beside it, held by the operating system: it is free again when its holder dies.

    Raises:
        LoraperfError: the file cannot be read or written, or another run has held it for ``wait`` seconds.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=wait):
            write_baseline(path, change(read_baseline(path)))
    except Timeout as error:
        raise LoraperfError(
            f"baseline {path}: another run has held its lock for {wait:.0f} s; nothing was changed, run it again"
        ) from error
    except OSError as error:
        raise LoraperfError(f"baseline {path}: cannot be locked: {error.strerror}; nothing was changed") from error


def baseline_text(baseline: Baseline) -> str:
    """Return the file's text.

    One block a record, sorted, with blank lines between, and each ends with a comma, the last too: what two
    branches add to different records, git merges.
    """
    records = [_block(key, record) for key, record in sorted(baseline.records.items())]
    goldens = [_block(key, golden) for key, golden in sorted(baseline.goldens.items())]
    head = f'{{"schema": {SCHEMA}, "records": {{'
    return "\n\n".join([head, *records, '"": null}, "goldens": {', *goldens, '"": null}}\n'])


def _block(key: str, record: Record | Golden) -> str:
    plain = to_plain(record)
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in plain.items()]
    return f"{json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n},"


def _from_json(data: object) -> Baseline:
    found = data.get("schema") if isinstance(data, dict) else data
    if not isinstance(data, dict) or found != SCHEMA or isinstance(found, bool):
        raise LoraperfError(
            f"schema is {json.dumps(found)[:40]}, this version reads {SCHEMA}; make it anew with this version "
            "(--loraperf-update-baseline into a new file)"
        )
    return Baseline(
        _records(Record, "records", data.get("records")), _records(Golden, "goldens", data.get("goldens", {}))
    )


def _records(kind: type[Kind], section: str, entries: object) -> dict[str, Kind]:
    if not isinstance(entries, dict):
        raise LoraperfError(
            f"{section} is {json.dumps(entries)[:40]}, an object is expected; take it from git again"
        )
    found = ((key, entry) for key, entry in entries.items() if key or entry is not None)
    return {key: _record(kind, key, entry, f"{section}[{key!r}]") for key, entry in found}


def _record(kind: type[Kind], key: str, entry: Any, where: str) -> Kind:
    try:
        record: Kind = from_plain(kind, entry, where)
    except LoraperfError as error:
        if str(error).startswith(where):
            raise
        raise LoraperfError(f"{where}: {error}; take the record out and make it anew") from error
    if record.subject.key != key:
        raise LoraperfError(
            f"{where} holds the record of {record.subject.key!r}: its subject was edited; "
            "take the record out and make it anew"
        )
    return record
