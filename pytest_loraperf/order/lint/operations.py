"""From a call to what it does to a model: the table of calls, applied."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pytest_loraperf.order.calls import (
    BY_NAME,
    COMPILE_KEYWORDS,
    MAIN_COMPONENTS,
    PARTS,
    RECEIVER,
    RETURNING_ARGUMENT,
    RETURNING_RECEIVER,
    Form,
    Operation,
)
from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.lint.loads import Loads
from pytest_loraperf.order.lint.recognize import holds
from pytest_loraperf.order.lint.values import NONE, Arguments, Const, Imported, Thing, Value, World
from pytest_loraperf.order.rules.base import attached, quantized

_LOADER = re.compile("lora_?loader", re.IGNORECASE)
_WITHIN = ("subfolder", "weight_name")
"""Arguments that tell the files of one repository apart."""
_MODEL_KEYWORDS = ("model", "module", "pipe", "pipeline")
_COMMON = frozenset({"compile", "to", "unload"})


@dataclass(frozen=True)
class Call:
    """A call of something that is not in the file: ``receiver.name(…)``, or ``path(…)``."""

    node: ast.Call
    receiver: Value | None
    name: str
    path: str
    given: Arguments

    @property
    def text(self) -> str:
        """What was called, as a reader knows it."""
        return dotted(self.node.func)


class Operations(Loads):
    """Recognizing operations."""

    def operate(self, call: Call, world: World) -> Value:
        """Do what the call does to the models of this world; return its result."""
        loaded = self.load(call.receiver, call.name, call.given, call.node, world)
        if loaded is not None:
            return loaded
        for operation, thing in self._candidates(call, world):
            before = world.history(thing)
            if operation.kind is not None and not self._has_no_effect(operation, call):
                self._apply(operation, thing, call, world)
            # 1.1's fp8 is known by its argument, and what was loaded as fp8 is fused into there, and lost
            if operation.manages and not (operation.needs_fp8 and quantized(before)):
                world.set(world.root(thing.number), "<managed>", Const(value=True))
            return thing if operation.returns_model else self.fresh(call.name)
        if call.name in RETURNING_RECEIVER | PARTS and isinstance(call.receiver, Thing):
            return call.receiver if call.name not in PARTS else self._parts_of(call.receiver, call.name, world)
        if call.name in RETURNING_ARGUMENT and call.given.positional:
            if len(call.given.positional) > 1:
                return self.container(
                    world, "list", [(str(i), each) for i, each in enumerate(call.given.positional)]
                )
            return call.given.positional[0]
        return self.fresh(call.name)

    def _parts_of(self, model: Thing, name: str, world: World) -> Value:
        """Return what iterates over a model's modules, or its parameters: the one part stands for all.

        A loop over them may leave out those of an adapter.
        """
        part = self.attribute(world, model, "weight") if name.endswith("parameters") else model
        if isinstance(part, Thing):
            part = replace(part, flags=part.flags | {"filtered"})
        if name.startswith("named"):
            part = self.container(world, "list", [("0", self.fresh()), ("1", part)])
        return self.container(world, "list", [("0", part)])

    def _candidates(self, call: Call, world: World) -> Iterator[tuple[Operation, Thing]]:
        """Yield the rows that this call is, with the model; only the first counts."""
        name = "fuse_lora_to_base_model" if self._loads_lora(call) else call.name
        if call.receiver is None or isinstance(call.receiver, Imported):
            for operation in BY_NAME.get((name, Form.FUNCTION), ()):
                thing = self.thing(self._argument(operation, call))
                if thing is None or not holds(operation.given, call.given, self.items_of(world)):
                    continue
                if self._is_from(operation, call) or (operation.evidence and self.is_model(thing, world)):
                    yield operation, thing
        if call.receiver is None or (isinstance(call.receiver, Imported) and name in _COMMON):
            return
        if name == "compile" and (call.given.positional or call.given.keywords.keys() - COMPILE_KEYWORDS):
            return
        for operation in BY_NAME.get((name, Form.METHOD), ()):
            if holds(operation.given, call.given, self.items_of(world)):
                thing = self._component(self._model(operation, call), call, world)
                if thing is not None:
                    yield operation, thing

    def _loads_lora(self, call: Call) -> bool:
        """Return whether this is ``load`` of a LoRA loader, which fuses."""
        if call.name != "load" or not isinstance(call.receiver, Thing) or not call.given.positional:
            return False
        thing = call.receiver
        names = (thing.made, thing.attribute, dotted(call.node.func).rpartition(".")[0].rpartition(".")[2])
        return any(_LOADER.search(each) for each in names) and not isinstance(call.given.positional[0], Const)

    def _argument(self, operation: Operation, call: Call) -> Value | None:
        found = call.given.get(operation.model)
        if found is not None:
            return found
        return next((call.given.keywords[each] for each in _MODEL_KEYWORDS if each in call.given.keywords), None)

    def _model(self, operation: Operation, call: Call) -> Thing | None:
        receiver = self.thing(call.receiver)
        if operation.model == RECEIVER:
            return receiver
        if operation.adapters and self._adapter(operation, call) is None:
            return receiver  # a loader that knows its model: ModelManager.load_lora(path)
        found = self.thing(self._argument(operation, call))
        if found is None or isinstance(self._argument(operation, call), Const):
            return None if operation.name == "quantize_model" else receiver
        return found

    def _component(self, thing: Thing | None, call: Call, world: World) -> Thing | None:
        """Return the component of a pipeline that ``components=[…]`` or ``load_into_transformer_2`` is about."""
        if thing is None:
            return None
        second = call.given.get("load_into_transformer_2")
        listed = self.items_of(world)(call.given.get("components")) or []
        names = [each.value for each in listed if isinstance(each, Const) and isinstance(each.value, str)]
        if second == Const(value=True):
            names = ["transformer_2"]
        if not names or MAIN_COMPONENTS & set(names):
            return thing
        return self.thing(self.attribute(world, thing, names[0]))

    def _adapter(self, operation: Operation, call: Call) -> str | int | None:
        return next((each for each in operation.adapters if call.given.get(each) is not None), None)

    def _is_from(self, operation: Operation, call: Call) -> bool:
        if not operation.modules:
            return not operation.evidence
        weights = call.given.get("weights")
        if isinstance(weights, Imported) and weights.name.startswith("q"):
            return True
        return call.path.startswith(tuple(f"{each}." for each in operation.modules))

    def is_model(self, thing: Thing, world: World) -> bool:
        """Return whether a thing is known as a model, or as a pipeline of models."""
        return bool(world.history(thing)) or "model" in thing.flags or thing.attribute in MAIN_COMPONENTS

    def _has_no_effect(self, operation: Operation, call: Call) -> bool:
        """Return whether the result of ``torch.compile(model)`` is thrown away: it is all that it makes."""
        unused = isinstance(self.survey.parents.get(call.node), ast.Expr)
        return operation.form is Form.FUNCTION and operation.kind is Kind.COMPILE and unused

    def _apply(self, operation: Operation, thing: Thing, call: Call, world: World) -> None:
        kind = operation.kind
        if kind is None:
            return
        if operation.undoes and not self._can_undo(operation, world.history(thing)):
            return
        if operation.hotloads and self._is_managed(thing, world):
            kind = Kind.ATTACH
        filtered = any(self._leaves_out(each, call, world) for each in operation.filters)
        configured = isinstance(call.receiver, Thing) and "filtered" in call.receiver.flags
        names = operation.adapters if operation.library != "diffsynth" else ()
        every = kind is Kind.FUSE and bool(names) and self._adapter(operation, call) is None
        for adapter in self._adapters(operation, call, kind, world.history(thing), world):
            event = Event(
                kind,
                call.text,
                self.place(call.node),
                self.sites[-1] if self.sites else None,
                adapter,
                needs_fp8=operation.needs_fp8,
                filtered=kind is Kind.QUANTIZE and (filtered or configured or operation.spares_adapters),
                every=every,
                source=self._source(operation, call, kind, world),
            )
            self.happen(world, thing, event, call.node)

    def _leaves_out(self, argument: str | int, call: Call, world: World) -> bool:
        """Return whether an argument may leave the adapters out: not one that excludes other layers by name."""
        value = call.given.get(argument)
        if value is None or value == NONE:
            return False
        listed = self.items(world, value, "list")
        names = [each for _, each in listed] if listed is not None else [value]
        known = [str(each.value) for each in names if isinstance(each, Const)]
        return argument != "exclude" or len(known) < len(names) or any("lora" in each.lower() for each in known)

    def _source(self, operation: Operation, call: Call, kind: Kind, world: World) -> str | None:
        """Return what an adapter that is attached is read from: the last of the arguments that may name it.

        A repository or a folder may have several.
        """
        where = operation.adapters[-1] if operation.adapters and kind is Kind.ATTACH else None
        named = None if where is None else self._label_of(where, call, world)
        parts = [self._label_of(each, call, world) for each in _WITHIN] if named is not None else []
        return None if named is None else "/".join([named, *filter(None, parts)])

    def _label_of(self, where: str | int, call: Call, world: World) -> str | None:
        value, node = call.given.get(where), call.given.nodes.get(where)
        if value is None:
            return None
        used = self.names_in(node) if node is not None else ()
        return self.label(value, node, tuple(world.lookup(each) or NONE for each in used))

    def _can_undo(self, operation: Operation, history: tuple[Event, ...]) -> bool:
        """Return whether the latest quantization is of a kind that this call takes back."""
        done = quantized(history)
        return done is not None and done.call.rpartition(".")[2] in operation.undoes

    def _is_managed(self, thing: Thing, world: World) -> bool:
        return (world.root(thing.number), "<managed>") in world.attributes

    def _adapters(
        self, operation: Operation, call: Call, kind: Kind, history: tuple[Event, ...], world: World
    ) -> list[str | None]:
        """Return the names of the adapters, None for all of them or for one that is not known."""
        there = [each.adapter for each in attached(history)]
        where = self._adapter(operation, call)
        if where is None and operation.name == "load_lora" and call.given.positional:
            where = 0
        if where is None:
            only = there[0] if kind is Kind.FUSE and len(there) == 1 else None
            return [only]
        value = call.given.get(where)
        if value is None:
            return [None]
        several = self.items(world, value, "list")
        if several is not None:
            names = [self.label(each, None, ()) for _, each in several] or [None]
        else:
            names = [self._label_of(where, call, world)]
        known = there if kind is Kind.DETACH else [each.adapter for each in history]
        if kind in (Kind.DETACH, Kind.FUSE) and there and not set(names) <= set(known):
            return [None] if kind is Kind.DETACH or operation.library != "diffsynth" else names
        return names


def dotted(node: ast.expr) -> str:
    """Return an expression as a short text: ``pipe.load_lora``, ``QuantizeConfig(…).quantize_model``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func)}(…)"
    if isinstance(node, ast.Subscript):
        return f"{dotted(node.value)}[…]"
    return "…"
