"""What a file defines and nothing in it calls: handlers, tests, methods, each interpreted by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_loraperf.order.lint.contexts import GENERATORS, Contexts
from pytest_loraperf.order.lint.nodes import decorators
from pytest_loraperf.order.lint.scene import MAX_DEPTH, AnyFunction
from pytest_loraperf.order.lint.values import NONE, Callable_, Class, Exit, Frame, Function, Thing, Value, World

SETUP_METHODS = ("setup", "setUp", "setup_method", "load_context")
"""Methods that a framework calls before the others."""
SETUP_DECORATORS = frozenset({"enter"})
"""What marks such a method."""
_PAUSING = frozenset({"fixture", *GENERATORS})


class Uncalled(Contexts):
    """Running functions, and the methods of classes, of whose arguments nothing is known."""

    def run_uncalled(self, worlds: list[World]) -> None:
        """Interpret what the file defines and nothing in it calls, after what the module does itself."""
        for node in self.survey.classes:
            if node in self.survey.hot:
                for world in worlds[:2]:
                    self._run_class(node, world.copy())
        functions = [Function(each) for each in self.survey.functions if self._is_waiting(each)]
        self._run_each(functions, worlds[:4])

    def _is_waiting(self, function: AnyFunction) -> bool:
        is_method = isinstance(self.survey.parents.get(function), ast.ClassDef)
        return function in self.survey.hot and function not in self.called and not is_method

    def _run_each(self, functions: list[Function], worlds: list[World]) -> None:
        """Interpret functions that are called from elsewhere, in an order that is not known.

        One that gives a name, an attribute or an item its first model comes before those that use it. Where
        several do, they are alternatives, and nothing is said of what follows which.
        """
        given: dict[ast.AST, list[World]] = {}
        for each in functions:
            if each.node not in self.called:
                mark = self.latest
                after = [(world, end) for world in worlds for end in self._run_alone(each, world.copy())]
                new = [end for world, end in after if self._has_first_model(each, world, end, mark)]
                given |= {each.node: new[:2]} if new else {}
        alternatives = [new for node, new in given.items() if node not in self.reached]
        for each in functions if len(alternatives) == 1 else ():
            if each.node not in given and each.node not in self.reached:
                for world in alternatives[0]:
                    self._run_alone(each, world.copy())

    def _has_first_model(self, function: Function, before: World, after: World, mark: int) -> bool:
        """Return whether a function gave the module, or a thing up to this number, a model where it had none."""
        if not self.survey.sets_up(function.node):
            return False
        old, new = before.frames[0].names, after.frames[0].names
        changes = [value for name, value in new.items() if old.get(name, NONE) == NONE]
        changes += [
            value
            for key, value in after.attributes.items()
            if key[0] <= mark and before.attributes.get(key, NONE) == NONE
        ]
        return any(isinstance(each, Thing) and self.is_model(each, after) for each in changes)

    def _run_alone(self, function: Function, world: World) -> list[World]:
        """Interpret a function of whose arguments nothing is known but those that are fixtures of the file."""
        if function.node in self.active or len(self.active) >= MAX_DEPTH:
            return [world]
        fixtures, world = self._fixtures(function, world)
        sites, self.sites = self.sites, []
        before = set(self.called)
        world.enter(self._unknown_frame(function, fixtures))
        self.active.append(function.node)
        paused: list[World] = []

        def pause(at: World, value: Value) -> list[World]:
            paused.append(at.copy())
            paused[-1].returned = value
            return [at]

        if _pauses(function):  # what comes after it sees things as they are then, not as they are left
            self.bodies[function.node] = pause
        try:
            worlds = [after for after, _ in self.run_body(function.node, world)]
        finally:
            self.bodies.pop(function.node, None)
            self.active.pop()
            self.sites = sites
        self.called |= before | {function.node}
        return [_revived(after) for after in paused or worlds]

    def _fixtures(self, function: Function, world: World) -> tuple[dict[str, Value], World]:
        """Return what the fixtures of the file give to what asks for them by name."""
        found: dict[str, Value] = {}
        for name in _parameters(function.node):
            fixture = world.frames[0].names.get(name)
            if isinstance(fixture, Function) and _is_fixture(fixture) and fixture.node is not function.node:
                after = self._run_alone(fixture, world)
                if after:
                    world = after[0]
                    found[name] = world.returned
        return found, world

    def _unknown_frame(self, function: Function, known: dict[str, Value]) -> Frame:
        arguments = function.node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        names: dict[str, Value] = {each.arg: known.get(each.arg) or self.fresh() for each in every}
        for extra in (arguments.vararg, arguments.kwarg):
            if extra is not None:
                names[extra.arg] = self.fresh()
        if function.receiver is not None and every:
            names[every[0].arg] = function.receiver
        return Frame(names, function.frame, cls=function.cls)

    def _run_class(self, node: ast.ClassDef, world: World) -> None:
        """Interpret the methods that nothing calls, each after what sets an instance up."""
        cls = Class(node, 0, self.number(("class", node)))
        instance = self.fresh(node.name, cls=cls)
        worlds = [world]
        entering = [each.name for each in _methods(node) if decorators(each) & SETUP_DECORATORS]
        for name in ("__init__", "__post_init__", "__enter__", *SETUP_METHODS, *entering):
            found = self.method(world, cls, name, instance)
            if found is not None and self._is_hot_or_stores(found):
                known = dict(self.findings) if found.node in self.called else None
                worlds = [after for before in worlds for after in self._run_alone(found, before)][:4]
                self.findings = self.findings if known is None else known  # what the file gives it was judged
        functions: list[Function] = []
        for method in _methods(node):
            if method in self.survey.hot and method not in self.called:
                names = decorators(method)
                receiver = None if "staticmethod" in names else cls if "classmethod" in names else instance
                functions.append(Function(method, 0, receiver, cls))
        self._run_each(functions, worlds)

    def _is_hot_or_stores(self, function: Function) -> bool:
        return any(each in self.survey.hot or each in self.survey.stirring for each in _body(function.node))

    def run_inner(self, node: AnyFunction, worlds: list[World]) -> None:
        """Interpret the functions in a function that nothing has called by its end: handlers, callbacks."""
        for each in self.survey.inner_functions(node):
            if each not in self.called and each not in self.active:
                for world in worlds[:2]:
                    if world.exit in (None, Exit.RETURN):
                        self._run_alone(Function(each, len(world.frames) - 1), _revived(world.copy()))


def _parameters(node: Callable_) -> list[str]:
    return [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def _is_fixture(function: Function) -> bool:
    return not isinstance(function.node, ast.Lambda) and "fixture" in decorators(function.node)


def _pauses(function: Function) -> bool:
    """Return whether a function gives way in its middle: a fixture, or what an application lives within."""
    return not isinstance(function.node, ast.Lambda) and bool(decorators(function.node) & _PAUSING)


def _body(node: Callable_) -> list[ast.stmt]:
    return [] if isinstance(node, ast.Lambda) else node.body


def _methods(node: ast.ClassDef) -> Iterator[AnyFunction]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield each


def _revived(world: World) -> World:
    world.exit = None
    return world
