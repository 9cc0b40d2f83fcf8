"""Functions that are passed around as values: in a list or a dict, or to what calls them with other arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from pytest_loraperf.order.calls import CALLING_LATER, PASSING_ON
from pytest_loraperf.order.lint.nodes import bound, called_name

LOOPS = (ast.For, ast.AsyncFor, ast.comprehension)
THREAD = "Thread"
CARRIERS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.arg, *LOOPS)
"""What functions are carried by: containers, parameters and the variables of loops."""


class Passing:
    """What stands as a value in a tree, and what may call such a value.

    ``names`` and ``lambdas`` are the values; ``variables`` the parameters and the variables of loops, which may
    hold one. ``calls`` has the call that another makes of its arguments, ``f(x)`` for ``to_thread(f, x)``, and
    ``later`` has those that are made as a with statement ends.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.lambdas: list[ast.Lambda] = []
        self.variables: set[str] = set()
        self.calls: dict[ast.Call, ast.Call] = {}
        self.later: dict[ast.Call, ast.Call] = {}

    def meet(self, node: ast.AST) -> None:
        """Look at a carrier."""
        if isinstance(node, ast.arg):
            self.variables.add(node.arg)
        elif isinstance(node, LOOPS):
            self.variables.update(bound(node))
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            self.carry(node.elts)
        elif isinstance(node, ast.Dict):
            self.carry(node.values)

    def meet_call(self, node: ast.Call, name: str) -> str:
        """Look at a call and its arguments; return the name of what it calls of them, or an empty text."""
        call: ast.Call | None = None
        if name == THREAD:
            call = _run_by_thread(node)
        elif node.args:
            self.carry(node.args)
            if name in PASSING_ON or name in CALLING_LATER or name == "map":
                call = _passed_on(node, name)
        if call is None:
            return ""
        (self.later if name in CALLING_LATER else self.calls)[node] = call
        return called_name(call)

    def carry(self, nodes: Iterable[ast.expr]) -> None:
        """Look at what stands as a value."""
        for each in nodes:
            if isinstance(each, ast.Name):
                self.names.add(each.id)
            elif isinstance(each, ast.Lambda):
                self.lambdas.append(each)


def _run_by_thread(node: ast.Call) -> ast.Call | None:
    """Return what ``Thread(target=f, args=(x,), kwargs={"y": z})`` calls once it is started."""
    given = {each.arg: each.value for each in node.keywords}
    function, positional, named = given.get("target"), given.get("args"), given.get("kwargs")
    if not isinstance(function, ast.Name | ast.Attribute):
        return None
    keywords = [
        ast.keyword(key.value, value)
        for key, value in (zip(named.keys, named.values, strict=True) if isinstance(named, ast.Dict) else ())
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]
    arguments = positional.elts if isinstance(positional, ast.Tuple | ast.List) else []
    return ast.copy_location(ast.Call(function, arguments, keywords), node)


def _passed_on(node: ast.Call, name: str) -> ast.Call | None:
    """Return what ``pool.submit(f, x)`` calls, or ``map(f, xs)`` with the first item."""
    place = PASSING_ON.get(name, 0)
    if len(node.args) <= place or any(isinstance(each, ast.Starred) for each in node.args):
        return None
    function, *given = node.args[place:]
    if not isinstance(function, ast.Name | ast.Attribute):
        return None
    if name == "map":
        if not given:
            return None  # dataset.map(f): what it is called with is not there
        first = ast.copy_location(ast.Constant(0), node)
        given = [ast.copy_location(ast.Subscript(each, first, ast.Load()), node) for each in given]
    return ast.copy_location(ast.Call(function, given, node.keywords), node)
