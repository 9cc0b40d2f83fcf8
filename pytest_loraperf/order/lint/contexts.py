"""With statements: what runs before their body, and after it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection

from pytest_loraperf.order.lint.functions import Functions
from pytest_loraperf.order.lint.nodes import called_name, decorators
from pytest_loraperf.order.lint.scene import Outcome
from pytest_loraperf.order.lint.values import NONE, Arguments, Const, Exit, Frame, Function, Thing, Value, World

RAISING = frozenset({"raises", "assertRaises", "assertRaisesRegex"})
"""Context managers whose body is to raise."""
GENERATORS = frozenset({"contextmanager", "asynccontextmanager"})
"""Decorators of functions whose ``yield`` runs the body."""
_ENTER, _EXIT = ("__enter__", "__aenter__"), ("__exit__", "__aexit__")
_LATER = "<later "

Body = Callable[[World, Value], list[World]]


class Contexts(Functions):
    """Running with statements.

    ``bodies`` wait for a function of the file to reach its ``yield``: by the call of it, and then by its node.
    """

    def __init__(self, tree: ast.Module, path: str, codes: Collection[str]) -> None:
        super().__init__(tree, path, codes)
        self.bodies: dict[ast.AST, Body] = {}
        self._left: dict[int, tuple[Exit, Value]] = {}

    def _do_with(self, node: ast.With | ast.AsyncWith, world: World) -> list[World]:
        managers = {
            called_name(each.context_expr) for each in node.items if isinstance(each.context_expr, ast.Call)
        }
        if managers & RAISING:

            def body(before: World) -> list[World]:
                worlds = self.block(node.body[:-1], [before])
                self.block(node.body[-1:], [each.copy() for each in worlds])  # it raises, so that it does nothing
                return worlds
        else:

            def body(before: World) -> list[World]:
                return self.block(node.body, [before])

        after_all = self._within(list(node.items), body, world)
        for each in after_all:
            if managers & {"suppress", *RAISING} and each.exit is Exit.RAISE:
                each.exit = None
        return after_all

    _do_asyncwith = _do_with

    def _within(
        self, items: list[ast.withitem], body: Callable[[World], list[World]], world: World
    ) -> list[World]:
        """Enter these, run the body, and leave them in the reverse order."""
        if not items:
            return body(world)
        item, *inner = items
        entered: list[int] = []

        def inside(before: World, value: Value) -> list[World]:
            entered.append(1)
            if item.optional_vars is not None and before.exit is None:
                self.assign(item.optional_vars, value, before)
            return self._within(inner, body, before) if before.exit is None else [before]

        manager = item.context_expr
        self.bodies[manager] = inside
        try:
            outcomes = self.evaluate(manager, world)
        finally:
            del self.bodies[manager]
        if entered:  # a generator of the file has run the body
            return [after for after, _ in outcomes]
        done: list[World] = []
        for after, value in outcomes:
            for before, target in self._called(value, _ENTER, value, manager, after):
                done += [last for left in inside(before, target) for last in self._leave(value, manager, left)]
        return done

    def _called(
        self, manager: Value, names: tuple[str, str], otherwise: Value, node: ast.expr, world: World
    ) -> list[Outcome]:
        """Call the method of an instance of the file's classes; return what it gives, or the other value."""
        if world.exit is None and isinstance(manager, Thing) and manager.cls is not None:
            for name in names:
                found = self.method(world, manager.cls, name, manager)
                if found is not None:
                    call = ast.copy_location(ast.Call(node, [], []), node)
                    return self.call_function(found, Arguments(), call, world)
        return [(world, otherwise)]

    def _leave(self, manager: Value, node: ast.expr, world: World) -> list[World]:
        """Run what a manager does at the end, however the body was left."""
        exit_, world.exit = world.exit, None
        returned = world.returned
        worlds = [after for after, _ in self._called(manager, _EXIT, NONE, node, world)]
        for call in reversed(self._later(manager, world)):
            worlds = [after for before in worlds for after, _ in self.evaluate(call, before)]
        for after in worlds:
            if exit_ is not None:
                after.exit, after.returned = after.exit or exit_, returned
        return worlds

    def _later(self, manager: Value, world: World) -> list[ast.Call]:
        """Return the calls that an ``ExitStack`` was given for its end."""
        found = [
            value.value
            for (owner, key), value in world.attributes.items()
            if isinstance(manager, Thing) and owner == manager.number and key.startswith(_LATER)
            if isinstance(value, Const)
        ]
        return [each for each in found if isinstance(each, ast.Call)]

    def call_later(self, call: ast.Call, node: ast.Call, world: World) -> list[Outcome]:
        """Remember a call for the end of the ``ExitStack`` that ``stack.callback(f, x)`` gives it to."""
        owner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        outcomes = self.evaluate(owner, world)
        for after, stack in outcomes:
            if isinstance(stack, Thing):
                after.set(stack.number, f"{_LATER}{len(self._later(stack, after))}>", Const(call))
        return outcomes

    # Generators

    def call_function(self, function: Function, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Call a function; the ``yield`` of one that a with statement enters runs that one's body."""
        body = self.bodies.get(node)
        if body is None or isinstance(function.node, ast.Lambda) or not decorators(function.node) & GENERATORS:
            return super().call_function(function, given, node, world)
        outer = self.bodies.get(function.node)
        self.bodies[function.node] = body
        try:
            return super().call_function(function, given, node, world)
        finally:
            del self.bodies[function.node]
            if outer is not None:
                self.bodies[function.node] = outer

    def left(self, frame: Frame, world: World) -> None:
        """Go on leaving what the body of a with statement left, after the generator that ran it."""
        mark = frame.names.get("<left>")
        if isinstance(mark, Thing) and world.exit is None:
            world.exit, world.returned = self._left[mark.number]

    def yielded(self, value: Value, world: World) -> list[World]:
        """Give a value to whoever called the generator: to the body of a with statement, or to a loop."""
        body = self.bodies.get(self.active[-1]) if self.active else None
        if body is None:
            return super().yielded(value, world)
        frame, function = world.leave(), self.active.pop()
        sites, self.sites = self.sites, self.sites[:-1]
        try:
            worlds = body(world, value)
        finally:
            self.active.append(function)
            self.sites = sites
        for after in worlds:
            own = frame.copy()
            if after.exit not in (None, Exit.RAISE):  # the generator goes on, and then the body is left
                key = after.exit, after.returned
                own.names["<left>"] = Thing(self.number(("left", key)), flags=frozenset({"left"}))
                self._left[self.number(("left", key))] = key
                after.exit = None
            after.enter(own)
        return worlds
