"""Statements, and the file as a whole: the paths that can be taken through it, and what each does."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from pytest_loraperf.order.lint.findings import Finding, unreadable
from pytest_loraperf.order.lint.flow import Flow
from pytest_loraperf.order.lint.nodes import children
from pytest_loraperf.order.lint.scene import MAX_WORLDS, Outcome, TooLong
from pytest_loraperf.order.lint.values import (
    NONE,
    Arguments,
    Class,
    Exit,
    Frame,
    Function,
    Imported,
    Partial,
    Thing,
    Value,
    World,
    merge,
)
from pytest_loraperf.order.rules import UNREADABLE

_JOINING = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match
)  # fmt: skip


class Interpreter(Flow):
    """Runs a file's statements in every world that they can be reached in."""

    def run(self) -> list[Finding]:
        """Interpret the file; return what was found, in the order of the source."""
        if not self.survey.is_worthwhile:
            return []
        try:
            worlds = merge(self.block(self.tree.body, [World()]), MAX_WORLDS)
            for world in worlds:
                world.exit = None
            self.run_uncalled(worlds)
        except TooLong:
            self._give_up("too many branches")
        except RecursionError:
            self._give_up("too deep a nesting")
        return sorted(self.findings.values())

    def _give_up(self, having: str) -> None:
        """Note where the file was left; what was found until then stands."""
        if UNREADABLE in self.codes:
            reason = (
                f"not to its end, for it has {having} here; of what was not reached nothing is known; split it"
            )
            found = unreadable(self.path, *self.at, reason)
            self.findings[*self.at, found.code] = found

    def block(self, statements: Iterable[ast.stmt], worlds: list[World]) -> list[World]:
        """Run statements in each world."""
        ended: list[World] = []
        for statement in filter(self.survey.matters, statements):
            after: list[World] = []
            for world in worlds:
                self.at = statement.lineno, statement.col_offset
                self.step()
                after += self.statement(statement, world)
            worlds = [world for world in after if world.exit is None]
            if len(worlds) < len(after):
                ended += [world for world in after if world.exit is not None]
            if len(worlds) > 1 and isinstance(statement, _JOINING):
                worlds = merge(worlds, MAX_WORLDS)
            if not worlds:
                break
        if not self._guarded and (worlds or any(each.exit is not Exit.RAISE for each in ended)):
            ended = [each for each in ended if each.exit is not Exit.RAISE]
        return worlds + (merge(ended, MAX_WORLDS) if len(ended) > 1 else ended)

    def statement(self, node: ast.stmt, world: World) -> list[World]:
        """Run one statement in one world."""
        method = self.methods["_do_", type(node)]
        if method is not None:
            found: list[World] = method(self, node, world)
            return found
        inside = [each for each in children(node) if isinstance(each, ast.expr)]
        return [after for after, _ in self.each(inside, world)]

    # Names

    def _do_assign(self, node: ast.Assign, world: World) -> list[World]:
        outcomes = self.evaluate(node.value, world)
        for after, value in outcomes:
            if after.exit is None:
                for target in node.targets:
                    self.assign(target, self._kept(target, node.value, value, after), after)
        return [after for after, _ in outcomes]

    def _kept(self, target: ast.expr, node: ast.expr, value: Value, world: World) -> Value:
        """Return the old value for ``x = wrapped(x)``: what an unknown function makes of a model is that model."""
        if not isinstance(node, ast.Call) or not isinstance(value, Thing) or value.flags or world.history(value):
            return value
        if not isinstance(target, ast.Name | ast.Attribute):
            return value
        text = ast.unparse(target)
        if any(ast.unparse(each) == text for each in node.args if isinstance(each, ast.Name | ast.Attribute)):
            old = self.thing(self.evaluate(target, world)[0][1])
            return old if old is not None and world.history(old) else value
        return value

    def _do_annassign(self, node: ast.AnnAssign, world: World) -> list[World]:
        if node.value is None:
            return [world]
        outcomes = self.evaluate(node.value, world)
        for after, value in outcomes:
            self.assign(node.target, value, after)
        return [after for after, _ in outcomes]

    def _do_augassign(self, node: ast.AugAssign, world: World) -> list[World]:
        outcomes = self.evaluate(node.value, world)
        for after, _ in outcomes:
            if isinstance(node.target, ast.Name):
                after.bind(node.target.id, self.fresh())
        return [after for after, _ in outcomes]

    def _do_delete(self, node: ast.Delete, world: World) -> list[World]:
        for target in node.targets:
            if isinstance(target, ast.Name):
                world.bind(target.id, self.fresh())
        return [world]

    def _do_global(self, node: ast.Global, world: World) -> list[World]:
        depth = len(world.frames) - 1
        world.names(depth)
        world.frames[depth].globals |= set(node.names)
        return [world]

    def _do_nonlocal(self, node: ast.Nonlocal, world: World) -> list[World]:
        depth = len(world.frames) - 1
        world.names(depth)
        world.frames[depth].nonlocals |= set(node.names)
        return [world]

    def _do_import(self, node: ast.Import, world: World) -> list[World]:
        for each in node.names:
            name = each.asname or each.name.split(".")[0]
            world.bind(name, Imported(each.name if each.asname else name))
        return [world]

    def _do_importfrom(self, node: ast.ImportFrom, world: World) -> list[World]:
        for each in node.names:
            if each.name != "*":
                world.bind(each.asname or each.name, Imported(f"{node.module or ''}.{each.name}".lstrip(".")))
        return [world]

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef, world: World) -> list[World]:
        outcomes: list[Outcome] = [(world, world.defined(node))]
        for decorator in reversed(node.decorator_list):
            outcomes = [each for before, value in outcomes for each in self._decorated(value, decorator, before)]
        for after, value in outcomes:
            after.bind(node.name, value)
        return [after for after, _ in outcomes]

    def _decorated(self, value: Value, decorator: ast.expr, world: World) -> list[Outcome]:
        """Return what a decorator of the file makes of a function, and the function itself of any other."""
        root = decorator.func if isinstance(decorator, ast.Call) else decorator
        while isinstance(root, ast.Attribute):
            root = root.value
        known = world.lookup(root.id) if isinstance(root, ast.Name) else None
        if not (isinstance(known, Function) or (isinstance(known, Thing) and known.cls is not None)):
            return [(world, value)]
        call = ast.copy_location(ast.Call(decorator, [], []), decorator)
        return [
            (last, made if isinstance(made, Function | Partial) else value)
            for after, function in self.evaluate(decorator, world)
            for last, made in self.call(function, Arguments([value]), call, after)
        ]

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef, world: World) -> list[World]:
        cls = Class(node, len(world.frames) - 1, self.number(("class", node)))
        world.bind(node.name, cls)
        world.enter(Frame(parent=len(world.frames) - 1))
        # An annotated name is a field, whose default an instance, or its configuration, may replace
        worlds = self.block((each for each in node.body if not isinstance(each, ast.AnnAssign)), [world])
        for after in worlds:
            for name, value in after.leave().names.items():
                if not isinstance(value, Function):
                    after.set(cls.number, name, value)
        return worlds

    # Ways out

    def _do_return(self, node: ast.Return, world: World) -> list[World]:
        outcomes = self.evaluate(node.value, world) if node.value is not None else [(world, NONE)]
        for after, value in outcomes:
            if after.exit is None:
                after.exit, after.returned = Exit.RETURN, value
        return [after for after, _ in outcomes]

    def _do_raise(self, node: ast.Raise, world: World) -> list[World]:
        children = [each for each in (node.exc, node.cause) if each is not None]
        return [_leaving(after, Exit.RAISE) for after, _ in self.each(children, world)]

    def _do_break(self, _: ast.Break, world: World) -> list[World]:
        return [_leaving(world, Exit.BREAK)]

    def _do_continue(self, _: ast.Continue, world: World) -> list[World]:
        return [_leaving(world, Exit.CONTINUE)]


def _leaving(world: World, way: Exit) -> World:
    if world.exit is None:
        world.exit = way
    return world
