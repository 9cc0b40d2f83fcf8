"""Frozen dataclasses to plain JSON data and back, strictly: a wrong file is refused by the name of its key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, get_args, get_origin, get_type_hints

from pytest_loraperf.errors import LoraperfError

_SHOWN = 40


def to_plain(value: Any) -> Any:
    """Return dicts, lists, str, int, float, bool and None, and no subclass of them.

    An array library's number becomes Python's, one that is not finite None, and what JSON does not know its repr.
    """
    kind = type(value)
    if kind is float:  # samples are most of what there is, and they are asked for after each test
        return value if math.isfinite(value) else None
    if kind is int or (kind is str and value.isascii()):
        return value
    if is_dataclass(value):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {to_plain(str(key)): to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return value if value is None or isinstance(value, bool) else _plain_scalar(value)


def _plain_scalar(value: object) -> str | int | float | None:
    if isinstance(value, str):
        # Half of a surrogate pair, as in a file name that is no UTF-8, is no text: many readers of JSON refuse it.
        return str.__str__(value).encode(errors="backslashreplace").decode()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return repr(value)


def parse_json(text: str) -> Any:
    """Return JSON data, read strictly.

    Raises:
        ValueError: it is no JSON; NaN and Infinity are none, though Python reads them.
        RecursionError: it is nested too deep.
        LoraperfError: a key is there twice in one object, of which Python would take the last.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise LoraperfError(f"{twice[:_SHOWN]!r} is there twice, as after a merge that kept both; keep one")
    return found


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON data into ``kind``: a dataclass of scalars, tuples, mappings, dataclasses, or None with these.

    What a file of another version has besides is passed over, and what it lacks takes its default.

    Raises:
        LoraperfError: a needed value is missing, or one is of another type; the message names its place.
    """
    if kind is Any:
        return _read_any(value, where)
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    arguments = get_args(kind)
    if type(None) in arguments:
        rest = next(each for each in arguments if each is not type(None))
        return None if value is None else from_plain(rest, value, where)
    if get_origin(kind) is tuple:
        return _read_tuple(arguments, value, where)
    if get_origin(kind) is Mapping:
        found = _checked(value, dict, "an object", where)
        return {key: from_plain(arguments[1], each, f"{where}[{key!r}]") for key, each in found.items()}
    return _read_scalar(kind, value, where)


def _read_any(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _read_any(each, f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list):
        return [_read_any(each, f"{where}[{i}]") for i, each in enumerate(value)]
    # JSON has no infinity, but 1e999 is read as one.
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(where, _show(value), "a finite number")
    return value


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    found = _checked(value, dict, "an object", where)
    hints = get_type_hints(kind)
    needed = (each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING)
    missing = next((name for name in needed if name not in found), None)
    if missing:
        raise _wrong(f"{where}.{missing}", "missing", "a value")
    names = [each.name for each in fields(kind) if each.name in found]
    return kind(**{name: from_plain(hints[name], found[name], f"{where}.{name}") for name in names})


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    items = _checked(value, list, "a list", where)
    if Ellipsis in kinds:
        kinds = (kinds[0],) * len(items)
    if len(kinds) != len(items):
        raise _wrong(where, f"a list of {len(items)}", f"one of {len(kinds)}")
    return tuple(
        from_plain(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True))
    )


_SCALARS: dict[type, tuple[Callable[[Any], bool], str]] = {
    float: (lambda value: _is_number(value) and _is_finite(value), "a finite number"),
    int: (lambda value: type(value) is int and 0 <= value < 2**63, "a whole number from 0 to below 2**63"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "a text"),
}


def _read_scalar(kind: type, value: Any, where: str) -> Any:
    fits, name = _SCALARS[kind]
    if not fits(value):
        raise _wrong(where, _show(value), name)
    return kind(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of floats
        return False


def _checked(value: Any, kind: type, name: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(where, _show(value), name)
    return value


def _show(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _wrong(where: str, found: str, wanted: str) -> LoraperfError:
    return LoraperfError(f"{where} is {found}, {wanted} is expected; measure again to write it anew")
