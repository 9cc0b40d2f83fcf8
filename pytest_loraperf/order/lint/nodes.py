"""Nodes of a tree, met quickly: what ``ast`` offers for it looks at every field of every node."""

from __future__ import annotations

import ast
from collections.abc import Iterator

WORD_OF: dict[type[ast.AST], str] = {
    ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value", ast.keyword: "arg", ast.alias: "name"
}  # fmt: skip
"""The field in which a kind of node holds a word of the source."""
_SAME_EVERYWHERE = frozenset({"ctx", "op", "ops"})
"""Fields of nodes that are no part of the source: ``ast`` has one ``Load``, one ``Add``."""


class _Fields(dict[type[ast.AST], tuple[str, ...]]):
    """The fields in which a kind of node holds others: those that hold texts or numbers are left out."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        word = WORD_OF.get(kind)
        self[kind] = tuple(each for each in kind._fields if each != word and each not in _SAME_EVERYWHERE)
        return self[kind]


_FIELDS = _Fields()


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes in a node: what ``ast.iter_child_nodes`` yields, without operators and contexts."""
    found: list[ast.AST] = []
    for name in _FIELDS[type(node)]:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [each for each in value if isinstance(each, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """Return a node and all in it, in no order that counts."""
    found = [node]
    for each in found:
        found += children(each)
    return found


def called_name(node: ast.Call) -> str:
    """Return the last part of the name of what is called, or an empty text."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the last parts of the names of a function's decorators."""
    found = set()
    for each in node.decorator_list:
        target = each.func if isinstance(each, ast.Call) else each
        if isinstance(target, ast.Attribute):
            found.add(target.attr)
        elif isinstance(target, ast.Name):
            found.add(target.id)
    return found


def bound(node: ast.AST) -> Iterator[str]:
    """Yield the names, and the names of the attributes, that a statement gives values to."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        for each in node.names:
            yield each.asname or each.name.split(".")[0]
        return
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]  # type: ignore[attr-defined] # the other bindings have one
    while targets:
        target = targets[-1]
        targets = targets[:-1]
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Attribute):
            yield target.attr
        elif isinstance(target, ast.Subscript | ast.Starred):
            targets = [*targets, target.value]
        elif isinstance(target, ast.Tuple | ast.List):
            targets = [*targets, *target.elts]
