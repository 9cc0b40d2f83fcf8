"""The page of the names that ``import pytest_loraperf`` gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum, EnumType
from typing import Any

import pytest_loraperf
from docs.generate.markdown import fenced, page, prose, signature
from pytest_loraperf.strategies import Step
from pytest_loraperf.verdict.decision import Decision


def python() -> str:
    """Return the page of the public names, and of what they return."""
    names = {name: getattr(pytest_loraperf, name) for name in pytest_loraperf.__all__ if name != "__version__"}
    steps = {name: value for name, value in names.items() if isinstance(value, Step)}
    others = {name: value for name, value in names.items() if name not in steps} | {"Decision": Decision}
    return page(
        "Names in Python",
        "the docstrings in pytest_loraperf",
        "`from pytest_loraperf import …`; `Decision` is what `Race.decide` returns. They are imported when they "
        "are asked for, so that a run which uses none of them imports no torch.",
        "## " + ", ".join(f"`{name}`" for name in steps),
        "\n".join(f"- `{name}` is `{_call(value)}`" for name, value in steps.items()),
        *(part for name in sorted(others, key=str.lower) for part in _entry(name, others[name])),
    )


def _call(step: Step) -> str:
    return f'Step("{step.kind}")'


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"## `{name}`"
    if isinstance(value, EnumType):
        members: list[Enum] = [*value.__members__.values()]
        words = ", ".join(f"`{each.value}`" for each in members)
        yield f"{prose(value)} They are {words}."
        return
    if not inspect.isclass(value) or is_dataclass(value):  # others are not made by a user
        yield fenced(signature(name, value))
    yield prose(value)
    if inspect.isclass(value):
        yield from _members(value)


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if isinstance(member, property):
            yield f"**`.{name}`**: {prose(member)}"
        elif inspect.isfunction(member) and (not name.startswith("_") or name == "__call__"):
            call = "" if name == "__call__" else f".{name}"
            yield f"**`{signature(call, member, bound=True)}`**: {prose(member)}"
