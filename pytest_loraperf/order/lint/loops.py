"""Loops whose rounds are about different things: other adapters, other pipelines."""

from __future__ import annotations

import ast

from pytest_loraperf.order.lint.nodes import walk


def feeds_operations(loop: ast.For | ast.AsyncFor, hot: set[ast.AST]) -> bool:
    """Return whether a call that matters in the loop's body gets something that its variable decides."""
    fed = _variables(loop.target)
    body = [node for statement in loop.body for node in walk(statement)]
    for _ in range(2):
        for node in body:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                if fed & _variables(node.value):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    fed |= {
                        name for target in targets if isinstance(target, ast.Name) for name in _variables(target)
                    }
            elif isinstance(node, ast.For | ast.AsyncFor) and fed & _variables(node.iter):
                fed |= _variables(node.target)
    calls = [node for node in body if isinstance(node, ast.Call) and node in hot]
    return any(fed & _variables(node) for node in calls)


def _variables(node: ast.AST) -> set[str]:
    return {each.id for each in walk(node) if isinstance(each, ast.Name)}
