"""What a value is, as far as the table of calls asks: an 8-bit float, true, set."""

from __future__ import annotations

import ast
from collections.abc import Callable

from pytest_loraperf.order.calls import WIDE_DTYPES, Given, Test
from pytest_loraperf.order.lint.values import Arguments, Const, Imported, Thing, Value

Items = Callable[[Value | None], list[Value] | None]
"""Gives the values in a dict or list of the file, None for anything else."""
_CONSTANTS = {Test.FALSE: "False", Test.IGNORE: "'ignore'"}


def is_fp8(value: Value | None, items: Items) -> bool | None:
    """Return whether this is an 8-bit float dtype, or a mapping to one; None where that is not known."""
    if isinstance(value, Const):
        return isinstance(value.value, str) and value.value.removeprefix("torch.").startswith(("float8", "fp8"))
    if isinstance(value, Imported):
        return value.name.startswith("float8")
    inside = items(value)
    if inside is not None:
        each = [is_fp8(item, items) for item in inside]
        return True if True in each else None if None in each else False
    if isinstance(value, Thing) and value.attribute.startswith("float8"):
        return True
    return None


def holds(given: Given | None, arguments: Arguments, items: Items) -> bool:
    """Return whether the condition of a row holds for these arguments."""
    if given is None:
        return True
    value = arguments.get(given.argument)
    if value is None:
        return False
    if given.test in (Test.TRUE, Test.MAYBE_TRUE):
        return bool(value.value) if isinstance(value, Const) else given.test is Test.MAYBE_TRUE
    if given.test in _CONSTANTS:
        return isinstance(value, Const) and repr(value.value) == _CONSTANTS[given.test]
    if given.test in (Test.FP8, Test.NOT_FP8):
        return is_fp8(value, items) is (given.test is Test.FP8)
    node = arguments.nodes.get(given.argument)
    return {
        Test.WIDE: isinstance(value, Imported) and value.name in WIDE_DTYPES,
        Test.NEGATIVE: isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub),
    }[given.test]
