"""What all parts of the interpreter share: the file, new identities, attributes, and what is reported."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from pytest_loraperf.order.calls import MAIN_COMPONENTS
from pytest_loraperf.order.events import Event, Kind, Place
from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.nodes import decorators, walk
from pytest_loraperf.order.lint.survey import Survey
from pytest_loraperf.order.lint.values import (
    Arguments,
    Class,
    Const,
    Function,
    Imported,
    Super,
    Thing,
    Value,
    World,
)
from pytest_loraperf.order.rules import check

Outcome = tuple[World, Value]
MAX_WORLDS = 8
LEAST_STEPS, STEPS_A_LINE, MAX_STEPS = 25_000, 4, 100_000
"""Statements and calls that are followed: some 20 µs each. Of 260 files of diffusion libraries that load LoRAs or
quantize, one needs more (82,000)."""
MAX_HISTORY = 60
MAX_DEPTH = 8
_WEIGHTS = frozenset({"weight", "data"})
_BLOCKS = ("blocks", "layers")
_STATE = "state"
"""Where a web application keeps its model: ``app.state`` is ``request.app.state``, whatever holds the two."""


AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


class _Methods(dict[tuple[str, type[ast.AST]], Callable[..., Any] | None]):
    """What runs a kind of node: the method of this beginning, and of the kind's name, or None."""

    def __init__(self, scene: type[Scene]) -> None:
        super().__init__()
        self._scene = scene

    def __missing__(self, key: tuple[str, type[ast.AST]]) -> Callable[..., Any] | None:
        beginning, kind = key
        self[key] = getattr(self._scene, beginning + kind.__name__.lower(), None)
        return self[key]


class TooLong(Exception):  # noqa: N818 - no error: what was found so far stands
    """The file has more paths than are followed."""


class Scene(ABC):
    """One file being interpreted."""

    def __init__(self, tree: ast.Module, path: str, codes: Collection[str]) -> None:
        self.tree = tree
        self.path = path
        self.codes = codes
        self.survey = Survey(tree)
        self.findings: dict[tuple[int, int, str], Finding] = {}
        self.sites: list[Place] = []
        self.active: list[ast.AST] = []
        self.called: set[ast.AST] = set()
        self.reached: set[ast.AST] = set()
        self.steps = 0
        self.at = 1, 0
        lines = tree.body[-1].end_lineno if tree.body else None
        self._most = min(MAX_STEPS, LEAST_STEPS + STEPS_A_LINE * (lines or 0))
        self._count = 0
        self._texts: dict[ast.expr, str] = {}
        self._names_in: dict[ast.expr, tuple[str, ...]] = {}
        self._constants: dict[ast.Constant, Const] = {}
        self._defined: dict[ast.ClassDef, dict[str, AnyFunction]] = {}
        self.methods = _Methods(type(self))
        self._interned: dict[object, int] = {}
        self._labels: dict[str, list[object]] = defaultdict(list)
        self.number(_STATE)  # before all that runs: who gives it a model comes before who uses it

    @abstractmethod
    def evaluate(self, node: ast.expr, world: World) -> list[Outcome]:
        """Return the values of an expression, each with the world in which it has it."""

    @abstractmethod
    def block(self, statements: Iterable[ast.stmt], worlds: list[World]) -> list[World]:
        """Run statements in each world."""

    @abstractmethod
    def call(self, function: Value, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Call a value."""

    @abstractmethod
    def call_function(self, function: Function, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Call a function of the file."""

    @abstractmethod
    def instantiate(self, cls: Class, given: Arguments, node: ast.Call, world: World) -> list[Outcome]:
        """Make an instance of a class of the file."""

    def text(self, node: ast.expr) -> str:
        """Return the source of an expression."""
        if node not in self._texts:
            self._texts[node] = ast.unparse(node)
        return self._texts[node]

    def constant(self, node: ast.Constant) -> Const:
        """Return the value of a constant: the same object for the same node, which is soon compared."""
        if node not in self._constants:
            self._constants[node] = Const(node.value)
        return self._constants[node]

    def names_in(self, node: ast.expr) -> tuple[str, ...]:
        """Return the names that stand in an expression."""
        if node not in self._names_in:
            self._names_in[node] = tuple(each.id for each in walk(node) if isinstance(each, ast.Name))
        return self._names_in[node]

    def step(self) -> None:
        """Count one statement or call, and stop where there is no end of them."""
        self.steps += 1
        if self.steps > self._most:
            raise TooLong

    # Identities

    def fresh(self, made: str = "", flags: Iterable[str] = (), cls: Class | None = None) -> Thing:
        """Return a new thing."""
        self._count += 1
        return Thing(self._count, made, frozenset(flags), cls=cls)

    @property
    def latest(self) -> int:
        """The highest identity there is: what comes later has a higher one."""
        return self._count

    def number(self, key: object) -> int:
        """Return the identity that belongs to this key, always the same one."""
        if key not in self._interned:
            self._count += 1
            self._interned[key] = self._count
        return self._interned[key]

    def thing(self, value: Value | None) -> Thing | None:
        """Return the thing that a value may be a model as, or None where it cannot be one."""
        if isinstance(value, Imported):
            path = value.path
            while "." in path and path.rpartition(".")[2] in MAIN_COMPONENTS:
                path = path.rpartition(".")[0]
            return Thing(self.number(("import", path)), owner=value)
        if isinstance(value, Super):
            return value.instance
        return value if isinstance(value, Thing) else None

    # Attributes

    def attribute(self, world: World, owner: Value, name: str) -> Value:
        """Return the value of an attribute that needs no call to be read."""
        if isinstance(owner, Imported):
            stored = world.attributes.get((self.number(("import", owner.path)), name))
            return stored if stored is not None else Imported(f"{owner.path}.{name}")
        if isinstance(owner, Thing):
            return self._attribute_of_thing(world, owner, name)
        if isinstance(owner, Class):
            stored = world.attributes.get((owner.number, name))
            return stored if stored is not None else self.method(world, owner, name, None) or self.fresh()
        if isinstance(owner, Super):
            for base in self._bases(world, owner.cls):
                found = self.method(world, base, name, owner.instance)
                if found is not None:
                    return found
            return self._attribute_of_thing(world, replace(owner.instance, cls=None), name)
        return self.fresh()

    def _attribute_of_thing(self, world: World, owner: Thing, name: str) -> Value:
        key = owner.number, name
        if key in world.attributes:
            return world.attributes[key]
        if owner.cls is not None:
            found = self.method(world, owner.cls, name, owner)
            if found is not None:
                return found
            stored = world.attributes.get((owner.cls.number, name))
            if stored is not None:
                return stored
        if name in MAIN_COMPONENTS:
            return owner
        if name == _STATE:
            return Thing(self.number(_STATE), attribute=name)
        return Thing(self.number(key), owner=owner, attribute=name)

    def store(self, world: World, owner: Value, name: str, value: Value) -> None:
        """Give an attribute a value; a pipeline that gets another denoiser takes that one's history."""
        if isinstance(owner, Class):
            world.set(owner.number, name, value)
            return
        thing = self.thing(owner)
        if thing is None:
            return
        new = self.thing(value)
        if name in _WEIGHTS and new is not None:
            self._replace_weights(world, thing, new)
        if name in MAIN_COMPONENTS and thing.cls is None and new is not None:
            mine, theirs = world.root(thing.number), world.root(new.number)
            if mine != theirs:
                world.same[mine] = theirs
        elif isinstance(owner, Imported):
            world.set(self.number(("import", owner.path)), name, value)
        else:
            world.set(thing.number, name, value)

    def _replace_weights(self, world: World, thing: Thing, new: Thing) -> None:
        """Remember of a model that one of its tensors was quantized: its ``.to`` changes no model by itself."""
        while thing.attribute in _WEIGHTS and (above := self.thing(thing.owner)) is not None:
            thing = above
        done = [event for event in world.history(new) if event.kind is Kind.QUANTIZE]
        if done and world.root(thing.number) != world.root(new.number):
            number = world.root(thing.number)
            world.histories[number] = (*world.histories.get(number, ()), done[-1])[-MAX_HISTORY:]

    def method(self, world: World, cls: Class, name: str, receiver: Value | None) -> Function | None:
        """Return the method of this name, of the class or of its bases in the file."""
        for each in (cls, *self._bases(world, cls)):
            node = self._methods_of(each.node).get(name)
            if node is not None:
                names = decorators(node)
                bound = None if "staticmethod" in names else each if "classmethod" in names else receiver
                return Function(node, each.frame, bound, each)
        return None

    def _methods_of(self, cls: ast.ClassDef) -> dict[str, AnyFunction]:
        """Return the methods of a class by name; of several with a name the first: the getter of a property."""
        if cls not in self._defined:
            functions = (each for each in reversed(cls.body) if isinstance(each, AnyFunction))
            self._defined[cls] = {each.name: each for each in functions}
        return self._defined[cls]

    def _bases(self, world: World, cls: Class) -> list[Class]:
        found: list[Class] = []
        waiting = [cls]
        while waiting:
            for base in waiting.pop(0).node.bases:
                value = world.frames[0].names.get(base.id) if isinstance(base, ast.Name) else None
                if isinstance(value, Class) and value != cls and value not in found:
                    found.append(value)
                    waiting.append(value)
        return found

    # Events

    def place(self, node: ast.AST) -> Place:
        """Return where a node stands; for a method, where its name does not matter: the start of the call."""
        return Place(self.path, getattr(node, "lineno", 1), getattr(node, "col_offset", 0))

    def label(self, value: Value, node: ast.expr | None, names: tuple[Value, ...]) -> str | None:
        """Return a text that is the same for the same adapter only."""
        if isinstance(value, Const):
            return value.value if isinstance(value.value, str) else None
        text = ast.unparse(node) if node is not None else "an adapter"
        key: object = (text, names) if names else value
        known = self._labels[text]
        if key not in known:
            known.append(key)
        index = known.index(key)
        return text if index == 0 else f"{text} ({index + 1})"

    def happen(self, world: World, thing: Thing, event: Event, node: ast.AST) -> None:
        """Add an event to a thing's history; report what is wrong with it there."""
        number = world.root(thing.number)
        history = world.histories.get(number, ())
        for found in check(history, event, self.codes):
            where = event.where
            message = found.message if event.via is None else f"{found.message} (called at line {event.via.line})"
            finding = Finding(
                self.path,
                where.line,
                where.col,
                found.code,
                found.name,
                message,
                getattr(node, "end_lineno", None) or where.line,
                found.earlier.where if found.earlier else None,
            )
            self.findings.setdefault((where.line, where.col, found.code), finding)
        world.histories[number] = (*history, event)[-MAX_HISTORY:]

    # Containers

    def container(self, world: World, kind: str, items: Iterable[tuple[str, Value]]) -> Thing:
        """Return a new dict or list of these items."""
        made = self.fresh(kind, {kind})
        for key, value in items:
            world.set(made.number, f"[{key}]", value)
        return made

    def items(self, world: World, value: Value | None, kind: str) -> list[tuple[str, Value]] | None:
        """Return the items of a dict or list of the file, None of anything else.

        The blocks of a model are a list of the model itself: what is done to each of them is done to it.
        """
        if isinstance(value, Thing) and kind == "list" and value.attribute.endswith(_BLOCKS):
            model = self.thing(value.owner)
            return None if model is None else [("0", model)]
        if not isinstance(value, Thing) or kind not in value.flags:
            return None
        number = value.number
        return [(key[1:-1], each) for (owner, key), each in world.attributes.items() if owner == number]
