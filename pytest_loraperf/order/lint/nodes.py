"""Nodes of a tree, met quickly: what ``ast`` offers for it looks at every field of every node."""

from __future__ import annotations

import ast

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
