"""Findings that the source allows: by a comment, or by the marker of a test."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.nodes import called_name, walk
from pytest_loraperf.order.noqa import suppresses


def unsuppressed(findings: Iterable[Finding], source: str, tree: ast.Module) -> list[Finding]:
    """Return the findings that the source does not allow.

    A ``noqa`` may stand on any line of the call, ``allow_order`` on the test, on its class or as ``pytestmark``.
    """
    found = list(findings)
    if found and "allow_order" in source:
        marked = list(_marked(tree))
        found = [
            each for each in found if not any(each.line in lines and each.code == code for lines, code in marked)
        ]
    if not found or "noqa" not in source.lower():
        return found
    comments = _comments(source)
    return [each for each in found if not _suppressed(each, comments)]


def _suppressed(finding: Finding, comments: dict[int, str]) -> bool:
    lines = range(finding.line, max(finding.line, finding.end_line) + 1)
    return any(suppresses(comments.get(line, ""), finding.code) for line in lines)


def _marked(tree: ast.Module) -> Iterator[tuple[range, str]]:
    """Yield the lines in which a marker allows a code."""
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for code in _codes_of(node.decorator_list):
                yield range(node.lineno, (node.end_lineno or node.lineno) + 1), code
            body: list[ast.stmt] = node.body
        elif isinstance(node, ast.Module):
            body = node.body
        else:
            continue
        for statement in body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
                for code in _codes_of([statement.value]):
                    yield range(body[0].lineno, (body[-1].end_lineno or 1) + 1), code


def _codes_of(marks: Iterable[ast.expr]) -> Iterator[str]:
    for node in (inside for mark in marks for inside in walk(mark)):
        if isinstance(node, ast.Call) and called_name(node) == "allow_order" and node.args:
            code = node.args[0]
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
