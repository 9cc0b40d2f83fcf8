"""The page of the results JSON, and its JSON Schema, from the dataclasses that are written."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from docs.generate.markdown import page, prose, table
from pytest_loraperf.report.results import SCHEMA, Results

SCHEMA_FILE = "results.schema.json"
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}


class Untitled(GenerateJsonSchema):
    """A schema whose fields have no titles: they would only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - it asks of every field
        return False


def schema() -> str:
    """Return the JSON Schema of a results file, as a reader has to expect it: what has a default may lack."""
    made = TypeAdapter(Results).json_schema(schema_generator=Untitled)
    made["properties"] = {"schema": {"const": SCHEMA}, **made["properties"]}
    made["required"] = ["schema", *made["required"]]
    return (
        json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **made}, indent=1, ensure_ascii=False).replace(
            "``", "`"
        )
        + "\n"
    )


def results_page() -> str:
    """Return the page of the results JSON."""
    return page(
        "Results JSON",
        "pytest_loraperf/report/results.py",
        "`--loraperf-json` of pytest, and `--json` of `loraperf bench`, `effect` and `forecast`, write this. "
        f"[{SCHEMA_FILE}]({SCHEMA_FILE}) is its JSON Schema. Bytes are whole numbers, seconds are not rounded, "
        "and what is no finite number is `null`. A file of schema "
        f"{SCHEMA} may lack what has a default here, and may have fields that are not listed: pass over them.",
        *(part for kind in _kinds() for part in _object(kind)),
    )


def _kinds() -> list[type]:
    """Return the dataclasses of the file, the outermost first."""
    found: dict[type, None] = {}
    _collect(Results, found)
    return [*found]


def _collect(kind: Any, found: dict[type, None]) -> None:
    if inspect.isclass(kind) and is_dataclass(kind) and kind not in found:
        found[kind] = None
        for hint in get_type_hints(kind).values():
            _collect(hint, found)
    for argument in get_args(kind):
        _collect(argument, found)


def _object(kind: Any) -> Iterator[str]:
    yield f"## {kind.__name__}"
    yield prose(kind)
    hints = get_type_hints(kind)
    rows = [(f"`{each.name}`", _json_type(hints[each.name]), _default(each)) for each in fields(kind)]
    if kind is Results:
        rows = [("`schema`", f"`{SCHEMA}`", "needed"), *rows]
    yield table(("field", "type", "default"), rows)


def _json_type(hint: Any) -> str:
    """Return the type of a field as JSON has it, a link where that is an object of this page."""
    arguments = get_args(hint)
    if is_dataclass(hint):
        name = getattr(hint, "__name__", "")
        return f"[{name}](#{name.lower()})"
    if type(None) in arguments:
        return f"{_json_type(arguments[0])} or null"
    if get_origin(hint) is Mapping:
        return f"object of {_json_type(arguments[1])}"
    if get_origin(hint) is tuple:
        some = "list" if Ellipsis in arguments else f"list of {len(arguments)}:"
        return f"{some} of {_json_type(arguments[0])}".replace(": of", ":")
    return SCALARS[hint]


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{json.dumps(field.default)}`"
    if field.default_factory is MISSING:
        return "needed"
    made = field.default_factory()
    return f"`{json.dumps(made)}`" if made == {} else "empty"
