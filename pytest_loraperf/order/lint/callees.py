"""Calls: their arguments, and who is called."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterable

from pytest_loraperf.order.calls import BY_NAME, Form
from pytest_loraperf.order.lint.operations import Call, Operations
from pytest_loraperf.order.lint.scene import MAX_WORLDS, Outcome
from pytest_loraperf.order.lint.values import (
    NONE,
    Arguments,
    Class,
    Const,
    Exit,
    Function,
    Imported,
    Partial,
    Super,
    Thing,
    Value,
    World,
)

_EXITS = frozenset({"exit", "sys.exit", "os._exit", "quit"})
_CLASSES = ("Pipeline", "Model")
"""How the classes end whose methods may be called on the class: ``FluxPipeline.fuse_lora(pipe)``."""
_COPIES = frozenset({"copy.deepcopy", "deepcopy", "copy.copy"})


class Callees(Operations):
    """Evaluating calls, in each world by itself."""

    def each(self, nodes: Iterable[ast.expr], world: World) -> list[tuple[World, list[Value]]]:
        """Evaluate expressions one after the other."""
        found: list[tuple[World, list[Value]]] = [(world, [])]
        for node in nodes:
            if len(found) == 1:  # as it nearly always is
                before, values = found[0]
                outcomes = self.evaluate(node, before)
                if len(outcomes) == 1:
                    after, value = outcomes[0]
                    values.append(value)
                    found[0] = after, values
                    continue
                found = [(after, [*values, value]) for after, value in outcomes]
                continue
            found = [
                (after, [*values, value])
                for before, values in found
                for after, value in self.evaluate(node, before)
            ]
        return found

    def _eval_call(self, node: ast.Call, world: World) -> list[Outcome]:
        self.step()
        passed_on = self.survey.passing.calls.get(node)
        if passed_on is not None:
            return self._eval_call(passed_on, world)
        later = self.survey.passing.later.get(node)
        if later is not None:
            return self.call_later(later, node, world)
        outcomes: list[Outcome] = []
        function = node.func
        owners: list[tuple[World, Value | None]]
        if isinstance(function, ast.Attribute):
            owners = [(after, owner) for after, owner in self.evaluate(function.value, world)]
        else:
            owners = [(world, None)]
        for before, owner in owners:
            for after, given in self._arguments(node, before):
                if after.exit is not None:
                    outcomes.append((after, NONE))
                elif owner is not None and isinstance(function, ast.Attribute):
                    outcomes += self.call_method(owner, function.attr, given, node, after)
                elif isinstance(function, ast.Name):
                    outcomes += self._call_name(function.id, given, node, after)
                else:
                    for last, value in self.evaluate(function, after):
                        outcomes += self.call(value, given, node, last)
        return outcomes[:MAX_WORLDS]

    @abstractmethod
    def call_later(self, call: ast.Call, node: ast.Call, world: World) -> list[Outcome]:
        """Remember a call for the end of the ``ExitStack`` that ``stack.callback(f, x)`` gives it to."""

    def _arguments(self, node: ast.Call, world: World) -> list[tuple[World, Arguments]]:
        if not node.args and not node.keywords:
            return [(world, Arguments())]
        nodes = [*node.args, *[each.value for each in node.keywords]]
        outcomes: list[tuple[World, Arguments]] = []
        for after, values in self.each(nodes, world):
            given = Arguments()
            for argument, value in zip(node.args, values, strict=False):
                inside = self.items(after, value, "list") if isinstance(argument, ast.Starred) else None
                if isinstance(argument, ast.Starred) and inside is None:
                    given.opaque = True
                    break
                given.nodes[len(given.positional)] = argument
                given.positional += [value] if inside is None else [each for _, each in inside]
            for keyword, value in zip(node.keywords, values[len(node.args) :], strict=True):
                if keyword.arg is not None:
                    given.keywords[keyword.arg] = value
                    given.nodes[keyword.arg] = keyword.value
                else:
                    self._expand(value, given, after)
            outcomes.append((after, given))
        return outcomes

    def _expand(self, value: Value, given: Arguments, world: World) -> None:
        """Add the items of ``**value``."""
        inside = self.items(world, value, "dict")
        if isinstance(value, Thing) and value.attribute == "components" and value.owner is not None:
            given.keywords["**components"] = value.owner
        elif inside is None:
            given.opaque = True
        else:
            given.keywords.update(inside)

    def _call_name(self, name: str, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        value = world.lookup(name)
        if value is None:
            built_in = self._call_built_in(name, given, world)
            if built_in is not None:
                return [(world, built_in)]
        if value is None or (isinstance(value, Thing) and not value.owner):
            return self._call_unknown(None, name, name, given, node, world)
        return self.call(value, given, node, world)

    def _call_built_in(self, name: str, given: Arguments, world: World) -> Value | None:
        """Return what a built-in function gives, None where it is none of those that matter."""
        first, second, third = given.get(0), given.get(1), given.get(2)
        found: Value | None = None
        if name in {"getattr", "setattr"} and first is not None and isinstance(second, Const):
            if name == "setattr" and third is not None:
                self.store(world, first, str(second.value), third)
            found = self.attribute(world, first, str(second.value))
        elif name == "dict":
            base = self.items(world, first, "dict") or []
            found = self.container(world, "dict", [*base, *given.keywords.items()])
        elif name in {"list", "tuple", "reversed", "sorted"}:
            found = first
        elif name == "enumerate":
            inside = self.items(world, first, "list")
            pairs = [self._pair(self.fresh(), each, world) for _, each in inside or []]
            found = None if inside is None else self.container(world, "list", numbered(pairs))
        elif name == "zip":
            found = self._zipped(given.positional, world)
        elif name == "super":
            frame = world.frames[-1]
            instance = next(iter(frame.names.values()), None)
            if frame.cls is not None and isinstance(instance, Thing):
                found = Super(instance, frame.cls)
        return found

    def _zipped(self, several: list[Value], world: World) -> Value | None:
        """Return the list of lists that ``zip`` gives, None where no item of any of its arguments is known."""
        columns = [[each for _, each in self.items(world, value, "list") or []] for value in several]
        rows = range(min((len(column) for column in columns if column), default=0))
        lists = [
            self.container(world, "list", numbered(column[row] if column else self.fresh() for column in columns))
            for row in rows
        ]
        return self.container(world, "list", numbered(lists)) if lists else None

    def _pair(self, one: Value, other: Value, world: World) -> Value:
        return self.container(world, "list", numbered([one, other]))

    def call(self, function: Value, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Call a value."""
        if isinstance(function, Function):
            return self.call_function(function, given, node, world)
        if isinstance(function, Class):
            return self.instantiate(function, given, node, world)
        if isinstance(function, Partial):
            merged = Arguments(
                [*function.positional, *given.positional],
                dict(function.keywords) | given.keywords,
                {},
                given.opaque,
            )
            return self.call(function.function, merged, node, world)
        if isinstance(function, Imported):
            return self._call_unknown(None, function.name, function.path, given, node, world)
        if isinstance(function, Thing):
            return self._call_thing(function, given, node, world)
        return [(world, self.fresh())]

    def _call_thing(self, function: Thing, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        if function.owner is not None:
            return self.call_method(function.owner, function.attribute, given, node, world)
        if function.cls is not None:
            return self.call_method(function, "__call__", given, node, world)
        return self._call_unknown(None, function.attribute, function.attribute, given, node, world)

    def call_method(
        self, owner: Value, name: str, given: Arguments, node: ast.Call, world: World
    ) -> list[Outcome]:
        """Call a method: one of the file's classes, of a container, or of something else."""
        if isinstance(owner, Imported):
            first = self.thing(given.get(0))
            is_method = (name, Form.METHOD) in BY_NAME and owner.name.endswith(_CLASSES)
            if is_method and first is not None and self.is_model(first, world):
                nodes = {key - 1 if isinstance(key, int) else key: each for key, each in given.nodes.items()}
                rest = Arguments(given.positional[1:], given.keywords, nodes, given.opaque)
                return self.call_method(first, name, rest, node, world)
            return self._call_unknown(owner, name, f"{owner.path}.{name}", given, node, world)
        value = self.attribute(world, owner, name)
        if isinstance(value, Function | Class | Partial | Imported):
            return self.call(value, given, node, world)
        if isinstance(owner, Thing) and owner.flags & {"dict", "list"}:
            return [(world, self._call_container(owner, name, given, world))]
        return self._call_unknown(owner, name, name, given, node, world)

    def _call_container(self, owner: Thing, name: str, given: Arguments, world: World) -> Value:
        kind = "dict" if "dict" in owner.flags else "list"
        first = given.get(0)
        inside = self.items(world, owner, kind) or []
        if name == "append" and first is not None:
            world.set(owner.number, f"[{len(inside)}]", first)
        elif name in {"update", "extend"}:
            added = self.items(world, first, kind) or []
            for offset, (key, value) in enumerate([*added, *given.keywords.items()]):
                key = key if kind == "dict" else str(len(inside) + offset)  # noqa: PLW2901 - its place in the list
                world.set(owner.number, f"[{key}]", value)
        elif name in {"get", "pop", "setdefault"} and isinstance(first, Const):
            stored = world.attributes.get((owner.number, f"[{first.value}]"))
            return stored if stored is not None else given.get(1) or NONE
        elif name == "copy":
            return self.container(world, kind, inside)
        elif name == "values":
            return self.container(world, "list", numbered([value for _, value in inside]))
        elif name == "items":
            pairs = [self._pair(self.fresh(), value, world) for _, value in inside]
            return self.container(world, "list", numbered(pairs))
        return self.fresh()

    def _call_unknown(
        self, owner: Value | None, name: str, path: str, given: Arguments, node: ast.Call, world: World
    ) -> list[Outcome]:
        if path in _EXITS:
            world.exit = Exit.RAISE
            return [(world, NONE)]
        if name == "partial" and given.positional:
            first, *rest = given.positional
            return [(world, Partial(first, tuple(rest), tuple(given.keywords.items())))]
        if path in _COPIES:
            copied = self.fresh(name, {"model"})
            thing = self.thing(given.get(0))
            if thing is not None:
                world.histories[copied.number] = world.history(thing)
            return [(world, copied)]
        return [(world, self.operate(Call(node, owner, name, path, given), world))]


def numbered(items: Iterable[Value]) -> list[tuple[str, Value]]:
    """Return the items of a list, each with its place as a key."""
    return [(str(index), value) for index, value in enumerate(items)]
