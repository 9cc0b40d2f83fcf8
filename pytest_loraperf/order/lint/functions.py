"""Functions and classes of the file, called as the file does."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterator

from pytest_loraperf.order.lint.expressions import Expressions
from pytest_loraperf.order.lint.scene import MAX_DEPTH, MAX_WORLDS, AnyFunction, Outcome
from pytest_loraperf.order.lint.values import (
    NONE,
    Arguments,
    Callable_,
    Class,
    Exit,
    Frame,
    Function,
    Value,
    World,
    merge,
)


class Functions(Expressions):
    """Calling functions, making instances."""

    def call_function(self, function: Function, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Interpret a function's body with these arguments; a recursion is cut."""
        self.called.add(function.node)
        self.reached.add(function.node)
        if len(self.active) >= MAX_DEPTH or function.node in self.active:
            return [(world, self.fresh())]
        world.enter(self._frame(function, given, world))
        self.active.append(function.node)
        self.sites.append(self.place(node))
        try:
            outcomes = self.run_body(function.node, world)
        finally:
            self.active.pop()
            self.sites.pop()
        return outcomes

    def run_body(self, node: Callable_, world: World) -> list[Outcome]:
        """Interpret a body in the innermost frame, and leave that."""
        if isinstance(node, ast.Lambda):
            outcomes = self.evaluate(node.body, world)
            for after, _ in outcomes:
                after.leave()
            return outcomes
        worlds = self.block(node.body, [world])
        self.run_inner(node, worlds)
        for after in worlds:
            frame = after.leave()
            if after.exit is not Exit.RETURN:
                after.returned = frame.names.get("<yield>", NONE)
            if after.exit is not Exit.RAISE:
                after.exit = None
            self.left(frame, after)
        return [(after, after.returned) for after in merge(worlds, MAX_WORLDS)]

    @abstractmethod
    def left(self, frame: Frame, world: World) -> None:
        """Go on leaving what the body of a with statement left, after the generator that ran it."""

    @abstractmethod
    def run_inner(self, node: AnyFunction, worlds: list[World]) -> None:
        """Interpret the functions in a function that nothing has called by its end."""

    def _frame(self, function: Function, given: Arguments, world: World) -> Frame:
        """Return the frame of a call: its parameters bound."""
        arguments = function.node.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        alive = world.has_frame_of(function)
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
        if not alive:
            names = {**function.captured, **names}
        return Frame(names, function.frame if alive else 0, cls=function.cls)

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
