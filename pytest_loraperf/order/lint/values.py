"""What the linter knows of values: a few kinds of abstract value, and a world that holds them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TypeVar

from pytest_loraperf.order.events import Event

Key = TypeVar("Key", str, tuple[int, str])
Callable_ = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Const:
    """A constant of the source."""

    value: object


@dataclass(frozen=True)
class Imported:
    """Something of another module, by its dotted name."""

    path: str

    @property
    def name(self) -> str:
        """The last part of the dotted name."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Thing:
    """Any other object; its number is its identity.

    ``made`` names what it was made by (a class or a function), ``flags`` what is known of it. A thing that was
    read off another has that one as its ``owner``, and the ``attribute``'s name. ``cls`` is its class, if that
    stands in the file.
    """

    number: int
    made: str = field(default="", compare=False)
    flags: frozenset[str] = field(default=frozenset(), compare=False)
    owner: Value | None = field(default=None, compare=False)
    attribute: str = field(default="", compare=False)
    cls: Class | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Function:
    """A function of the file; ``frame`` is the depth of the frame it was defined in, ``receiver`` its self.

    ``call`` is the number of that frame, and ``captured`` are the names that it and those around it had: the
    function may outlive them.
    """

    node: Callable_
    frame: int = 0
    receiver: Value | None = None
    cls: Class | None = None
    call: int | None = field(default=None, compare=False)
    captured: Mapping[str, Value] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Class:
    """A class of the file."""

    node: ast.ClassDef
    frame: int = 0
    number: int = 0


@dataclass(frozen=True)
class Partial:
    """A call with some of its arguments already given."""

    function: Value
    positional: tuple[Value, ...]
    keywords: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Super:
    """What ``super()`` gives: the instance, seen from above this class."""

    instance: Thing
    cls: Class


Value = Const | Imported | Thing | Function | Class | Partial | Super
NONE = Const(None)
_CALLS = count(1)
_EITHER = count(1)
"""Numbers of things that are one constant on some of the joined paths, and another on others."""


@dataclass
class Arguments:
    """The arguments of a call, evaluated; ``opaque`` where ``*`` or ``**`` of something unknown adds to them."""

    positional: list[Value] = field(default_factory=list)
    keywords: dict[str, Value] = field(default_factory=dict)
    nodes: dict[str | int, ast.expr] = field(default_factory=dict)
    opaque: bool = False

    def get(self, name: str | int) -> Value | None:
        """Return the argument of this keyword or position, or None where it is not given."""
        if isinstance(name, str):
            return self.keywords.get(name)
        return self.positional[name] if name < len(self.positional) else None


class Exit(StrEnum):
    """How a path leaves a block before its end."""

    RETURN = "return"
    RAISE = "raise"
    BREAK = "break"
    CONTINUE = "continue"


@dataclass
class Frame:
    """The names of a module or of one call of a function; ``parent`` is the depth of the enclosing one.

    ``globals`` and ``nonlocals`` are the names declared to be those of the module, or of an enclosing call.
    """

    names: dict[str, Value] = field(default_factory=dict)
    parent: int = 0
    globals: frozenset[str] = frozenset()
    nonlocals: frozenset[str] = frozenset()
    cls: Class | None = None
    number: int = 0

    def copy(self) -> Frame:
        """Return another frame with the same names."""
        return Frame(dict(self.names), self.parent, self.globals, self.nonlocals, self.cls, self.number)


@dataclass
class World:
    """One path through the file: the values of all names and attributes, and what was done to each model.

    Copies share their frames and attributes until one of them changes: ``own`` are the depths of the frames
    that are this world's alone, ``-1`` its attributes.
    """

    frames: list[Frame] = field(default_factory=lambda: [Frame()])
    attributes: dict[tuple[int, str], Value] = field(default_factory=dict)
    histories: dict[int, tuple[Event, ...]] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)
    assumed: dict[object, object] = field(default_factory=dict)
    exit: Exit | None = None
    returned: Value = NONE
    own: set[int] = field(default_factory=set)

    def copy(self) -> World:
        """Return a world that goes on from here by itself."""
        self.own = set()
        return World(
            list(self.frames),
            self.attributes,
            dict(self.histories),
            dict(self.same),
            dict(self.assumed),
            self.exit,
            self.returned,
        )

    def names(self, depth: int) -> dict[str, Value]:
        """Return the names of a frame, to be changed."""
        if depth not in self.own:
            self.own.add(depth)
            self.frames[depth] = self.frames[depth].copy()
        return self.frames[depth].names

    def set(self, number: int, name: str, value: Value) -> None:
        """Give an attribute of an identity a value."""
        if -1 not in self.own:
            self.own.add(-1)
            self.attributes = dict(self.attributes)
        self.attributes[number, name] = value

    def enter(self, frame: Frame) -> None:
        """Begin a call, or go on with one."""
        frame.number = frame.number or next(_CALLS)
        self.frames.append(frame)
        self.own.add(len(self.frames) - 1)

    def leave(self) -> Frame:
        """End a call; return its frame."""
        self.own.discard(len(self.frames) - 1)
        return self.frames.pop()

    def root(self, number: int) -> int:
        """Return the number under which the history of this identity is kept."""
        while number in self.same:
            number = self.same[number]
        return number

    def history(self, thing: Thing) -> tuple[Event, ...]:
        """Return what was done to this thing."""
        return self.histories.get(self.root(thing.number), ())

    def defined(self, node: Callable_) -> Function:
        """Return the function that is defined here and now."""
        depth = len(self.frames) - 1
        captured: dict[str, Value] = {}
        while depth:
            captured = {**self.frames[depth].names, **captured}
            parent = self.frames[depth].parent
            depth = parent if parent < depth else 0
        here = len(self.frames) - 1
        return Function(node, here, call=self.frames[here].number, captured=captured)

    def has_frame_of(self, function: Function) -> bool:
        """Return whether the call that a function was defined in still goes on."""
        depth = function.frame
        return function.call is None or (depth < len(self.frames) and self.frames[depth].number == function.call)

    def lookup(self, name: str) -> Value | None:
        """Return the value of a name as the innermost frame sees it."""
        depth = len(self.frames) - 1
        return self.frames[0 if name in self.frames[depth].globals else self._holder(name, depth)].names.get(name)

    def _holder(self, name: str, depth: int) -> int:
        """Return the depth of the frame, from this one outwards, that has the name, or of the module's."""
        while depth and name not in self.frames[depth].names:
            parent = self.frames[depth].parent
            depth = parent if parent < depth else 0  # the frame it was defined in may be left
        return depth

    def bind(self, name: str, value: Value) -> None:
        """Give a name a value in the innermost frame, or in the one that it is declared to be of."""
        depth = len(self.frames) - 1
        frame = self.frames[depth]
        if name in frame.globals:
            depth = 0
        elif name in frame.nonlocals:
            depth = self._holder(name, frame.parent if frame.parent < depth else 0)
        self.names(depth)[name] = value

    def is_plain(self, value: Value) -> bool:
        """Return whether nothing is known of this value that an order of operations could depend on."""
        if isinstance(value, Const):
            return not isinstance(value.value, bool) and not _is_fp8(value.value)
        if isinstance(value, Thing):
            return not (value.flags or value.cls or self.history(value))
        return isinstance(value, Imported) and not _is_fp8(value.name)


def merge(worlds: list[World], limit: int) -> list[World]:
    """Join the paths on which the same was done to the same models; keep no more than the limit."""
    if len(worlds) <= 1:
        return list(worlds)
    kept: list[World] = []
    for world in worlds:
        for other in kept:
            # Asked here, as nearly all that are not joined differ in this
            is_same = other.exit is world.exit and other.histories == world.histories and other.same == world.same
            if is_same and _absorb(other, world):
                break
        else:
            kept.append(world)
    if len(kept) > limit:
        kept.sort(key=lambda world: -sum(map(len, world.histories.values())))
    return kept[:limit]


def _absorb(into: World, world: World) -> bool:
    """Join a world into another with the same history, if they differ in nothing else that matters."""
    ours, theirs = into.returned, world.returned
    if ours is not theirs and ours != theirs and not (into.is_plain(ours) and world.is_plain(theirs)):
        return False
    # From the innermost frame on: what was bound last is the likeliest to differ
    frames: list[tuple[int, dict[str, Value]]] = []
    for depth in range(len(into.frames) - 1, -1, -1):
        mine, other = into.frames[depth], world.frames[depth]
        if mine is not other:
            names = _joined(mine.names, other.names, into, world)
            if names is None:
                return False
            if names:
                frames.append((depth, names))
    attributes = _joined(into.attributes, world.attributes, into, world)
    if attributes is None:
        return False
    for depth, names in frames:
        into.names(depth).update(names)
    for (number, name), value in attributes.items():
        into.set(number, name, value)
    if into.assumed != world.assumed:
        into.assumed = {key: value for key, value in into.assumed.items() if world.assumed.get(key) == value}
    return True


def _joined(
    ours: dict[Key, Value], theirs: dict[Key, Value], into: World, world: World
) -> dict[Key, Value] | None:
    """Return what changes in ours where the two are joined, None where they differ in something that matters."""
    if ours is theirs:
        return {}
    changes: dict[Key, Value] = {}
    # Most values are shared, which needs no more than a look at their identity
    apart = [(key, mine, other) for key, mine in ours.items() if mine is not (other := theirs.get(key, NONE))]
    for key, mine, other in apart:
        if mine != other:
            if not (into.is_plain(mine) and world.is_plain(other)):
                return None
            if mine == NONE:
                changes[key] = other
            elif isinstance(mine, Const) and other != NONE:
                changes[key] = other if isinstance(other, Thing) else Thing(-next(_EITHER))
    for key in theirs.keys() - ours.keys():
        if not world.is_plain(theirs[key]):
            return None
        changes[key] = theirs[key]
    return changes


def _is_fp8(name: object) -> bool:
    """Return whether this is the name of a dtype that paths must be kept apart for."""
    return isinstance(name, str) and name.startswith(("float8", "fp8", "torch.float8"))
