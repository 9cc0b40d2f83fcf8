"""Functions and classes of the file: called as the file does, or by themselves where nothing calls them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_loraperf.order.lint.expressions import Expressions
from pytest_loraperf.order.lint.nodes import decorators
from pytest_loraperf.order.lint.scene import MAX_DEPTH, MAX_WORLDS, AnyFunction, Outcome
from pytest_loraperf.order.lint.values import (
    NONE,
    Arguments,
    Callable_,
    Class,
    Exit,
    Frame,
    Function,
    Thing,
    Value,
    World,
    merge,
)

SETUP_METHODS = ("setup", "setUp", "setup_method", "load_context")
"""Methods that a framework calls before the others."""


class Functions(Expressions):
    """Calling functions, making instances."""

    def call_function(self, function: Function, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Interpret a function's body with these arguments; a recursion is cut."""
        self.called.add(function.node)
        if len(self.active) >= MAX_DEPTH or function.node in self.active:
            return [(world, self.fresh())]
        world.enter(self._frame(function, given, world))
        self.active.append(function.node)
        self.sites.append(self.place(node))
        try:
            outcomes = self._run(function.node, world)
        finally:
            self.active.pop()
            self.sites.pop()
        return outcomes

    def _run(self, node: Callable_, world: World) -> list[Outcome]:
        if isinstance(node, ast.Lambda):
            outcomes = self.evaluate(node.body, world)
            for after, _ in outcomes:
                after.leave()
            return outcomes
        worlds = self.block(node.body, [world])
        self._run_inner(node, worlds)
        for after in worlds:
            frame = after.leave()
            if after.exit is not Exit.RETURN:
                after.returned = frame.names.get("<yield>", NONE)
            if after.exit is not Exit.RAISE:
                after.exit = None
        return [(after, after.returned) for after in merge(worlds, MAX_WORLDS)]

    def _run_inner(self, node: AnyFunction, worlds: list[World]) -> None:
        """Interpret the functions in a function that nothing has called by its end: handlers, callbacks."""
        for each in self.survey.inner_functions(node):
            if each not in self.called and each not in self.active:
                for world in worlds[:2]:
                    if world.exit in (None, Exit.RETURN):
                        self._run_alone(Function(each, len(world.frames) - 1), _revived(world.copy()))

    def _frame(self, function: Function, given: Arguments, world: World) -> Frame:
        """Return the frame of a call: its parameters bound."""
        arguments = function.node.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        names: dict[str, Value] = {}
        values = list(given.positional)
        if function.receiver is not None:
            values.insert(0, function.receiver)
        names.update(zip(positional, values, strict=False))
        if arguments.vararg is not None:
            rest = [(str(i), each) for i, each in enumerate(values[len(positional) :])]
            names[arguments.vararg.arg] = self.container(world, "list", rest)
        known = {*positional, *(each.arg for each in arguments.kwonlyargs)}
        names.update({name: value for name, value in given.keywords.items() if name in known})
        if arguments.kwarg is not None:
            rest = [(name, value) for name, value in given.keywords.items() if name not in known]
            names[arguments.kwarg.arg] = self.fresh() if given.opaque else self.container(world, "dict", rest)
        for name, default in _defaults(arguments):
            if name not in names:
                names[name] = self.fresh() if given.opaque else self.peek(default, world) or self.fresh()
        for name in known - names.keys():
            names[name] = self.fresh()
        return Frame(names, function.frame, cls=function.cls)

    def instantiate(self, cls: Class, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Make an instance: ``__init__`` with these arguments, or the fields of a dataclass."""
        instance = self.fresh(cls.node.name, cls=cls)
        init = self.method(world, cls, "__init__", instance)
        if init is not None:
            return [(after, instance) for after, _ in self.call_function(init, given, node, world)]
        outcomes: list[Outcome] = [(world, instance)]
        fields = [
            each.target.id
            for each in cls.node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        ]
        if fields:
            values = dict(zip(fields, given.positional, strict=False)) | given.keywords
            for name, value in values.items():
                self.store(world, instance, name, value)
        after_init = self.method(world, cls, "__post_init__", instance)
        if after_init is not None:
            outcomes = [(after, instance) for after, _ in self.call_function(after_init, Arguments(), node, world)]
        return outcomes

    # What nothing in the file calls

    def run_uncalled(self, worlds: list[World]) -> None:
        """Interpret what the file defines and nothing in it calls, after what the module does itself."""
        for node in self.survey.classes:
            if node in self.survey.hot:
                for world in worlds[:2]:
                    self._run_class(node, world.copy())
        waiting = [each for each in self.survey.functions if each in self.survey.hot and not self._is_done(each)]
        starts = worlds[:4]
        for each in sorted(waiting, key=self.survey.sets_globals, reverse=True):
            if self._is_done(each):
                continue
            for world in starts[:4]:
                for after in self._run_alone(Function(each), world.copy()):
                    if self.survey.sets_globals(each) and self._has_new_models(world, after):
                        starts.insert(0, after)

    def _is_done(self, function: AnyFunction) -> bool:
        return function in self.called or isinstance(self.survey.parents.get(function), ast.ClassDef)

    def _has_new_models(self, before: World, after: World) -> bool:
        """Return whether the module has a model that it did not have before, in a global or in a dict."""
        known = before.frames[0].names
        for name, value in after.frames[0].names.items():
            if not isinstance(value, Thing):
                continue
            if value != known.get(name) and self.is_model(value, after):
                return True
            for _, item in self.items(after, value, "dict") or []:
                if isinstance(item, Thing) and self.is_model(item, after) and not self.is_model(item, before):
                    return True
        return False

    def _run_alone(self, function: Function, world: World) -> list[World]:
        """Interpret a function of whose arguments nothing is known but those that are fixtures of the file."""
        if function.node in self.active or len(self.active) >= MAX_DEPTH:
            return [world]
        fixtures, world = self._fixtures(function, world)
        sites, self.sites = self.sites, []
        before = set(self.called)
        world.enter(self._unknown_frame(function, fixtures))
        self.active.append(function.node)
        try:
            outcomes = self._run(function.node, world)
        finally:
            self.active.pop()
            self.sites = sites
        self.called |= before | {function.node}
        return [_revived(after) for after, _ in outcomes]

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
        for name in ("__init__", "__post_init__", "__enter__", *SETUP_METHODS):
            found = self.method(world, cls, name, instance)
            if found is not None and self._is_hot_or_stores(found):
                worlds = [after for before in worlds for after in self._run_alone(found, before)][:4]
        for method in _methods(node):
            if method in self.survey.hot and method not in self.called:
                names = decorators(method)
                receiver = None if "staticmethod" in names else cls if "classmethod" in names else instance
                for before in worlds:
                    self._run_alone(Function(method, 0, receiver, cls), before.copy())

    def _is_hot_or_stores(self, function: Function) -> bool:
        return any(each in self.survey.hot or each in self.survey.stirring for each in _body(function.node))


def _parameters(node: Callable_) -> list[str]:
    return [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def _is_fixture(function: Function) -> bool:
    return not isinstance(function.node, ast.Lambda) and "fixture" in decorators(function.node)


def _body(node: Callable_) -> list[ast.stmt]:
    return [] if isinstance(node, ast.Lambda) else node.body


def _methods(node: ast.ClassDef) -> Iterator[AnyFunction]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield each


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    yield from zip(
        (each.arg for each in positional[len(positional) - len(arguments.defaults) :]),
        arguments.defaults,
        strict=True,
    )
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield each.arg, default


def _revived(world: World) -> World:
    world.exit = None
    return world
