"""What a call does: to which models, with which adapters, and how many layers it changed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from pytest_loraperf.order.entry_points import ATTRIBUTE, PIPELINE, RESULT, SELF, Argument, EntryPoint
from pytest_loraperf.order.events import Kind
from pytest_loraperf.order.runtime import weights
from pytest_loraperf.order.runtime.declared import Inside


@dataclass
class Call:
    """A call as it is made, and what the calls inside of it tell."""

    receiver: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inside: Inside = field(default_factory=Inside)

    def get(self, argument: Argument) -> Any:
        """Return an argument, or an attribute of ``self``; None where it is not given."""
        if argument.position == ATTRIBUTE:
            return getattr(self.receiver, argument.name, None)
        if argument.name in self.kwargs:
            return self.kwargs[argument.name]
        return self.args[argument.position] if argument.position < len(self.args) else None

    def does(self, point: EntryPoint) -> bool:
        """Whether the call does what this entry point is for."""
        return point.when is None or point.when[1](self.get(point.when[0]))

    def models(self, point: EntryPoint, result: Any = None) -> list[Any]:
        """Return the models that the call is about."""
        if point.on is PIPELINE:
            named = self.get(point.parts) if point.parts is not None else None
            parts = tuple(named) if named and isinstance(named, list | tuple) else ()
            found = weights.components(self.receiver, *([parts] if parts else []))
        elif point.on is RESULT:
            found = weights.components(result)
        else:
            found = [self.receiver if point.on is SELF else self.get(point.on)]
        return [model for model in map(weights.the_model, found) if model is not None]


class Change(NamedTuple):
    """What was done to one model: ``layers`` of ``total`` changed, where that can be told."""

    model: Any
    kind: Kind
    layers: int | None = None
    total: int | None = None


@dataclass
class Step:
    """One entry point in a call, begun before it and told of after it."""

    point: EntryPoint
    call: Call
    models: list[Any]
    adapters: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, point: EntryPoint, call: Call) -> Step:
        """Look at the models before the call."""
        step = cls(point, call, [] if point.on is RESULT else call.models(point))
        if point.countable:
            step.adapters = {id(model): weights.count_adapters(model) for model in step._with_neighbours()}
        return step

    def changes(self, result: Any) -> Iterator[Change]:
        """Look at the models after the call, and tell what was done to each."""
        kind = Kind.FUSE if self.point.kind is Kind.ATTACH and self.call.inside.fused else self.point.kind
        if self.point.on is RESULT:
            self.models = self.call.models(self.point, result)
        match kind:
            case Kind.FUSE if self.call.inside.names is not None:
                names = self.call.inside.names
                yield from (
                    Change(each, kind, weights.count_named(each, names), len(names)) for each in self.models
                )
            case Kind.ATTACH if self._can_count():
                yield from self._attached()
            case Kind.QUANTIZE:
                is_done = getattr(self.call.receiver, "is_quantized_linear", None)
                yield from (Change(each, kind, *weights.count_quantized(each, is_done)) for each in self.models)
            case _:
                yield from (Change(each, kind) for each in self.models)

    def _can_count(self) -> bool:
        """Whether it is known how the library attaches an adapter: it read one, or it is diffusers' mixin."""
        known = any(hasattr(model, "load_lora_adapter") for model in self.models)
        return self.point.countable and (known or self.call.inside.names is not None)

    def _attached(self) -> Iterator[Change]:
        names = self.call.inside.names
        grown = {
            id(model): weights.count_adapters(model) - self.adapters.get(id(model), 0)
            for model in self._with_neighbours()
        }
        for model in self.models:
            # An adapter may be for the text encoder alone: then nothing was done to this model.
            if grown[id(model)] or not any(grown.values()):
                yield Change(model, Kind.ATTACH, grown[id(model)], None if names is None else len(names))

    def _with_neighbours(self) -> list[Any]:
        around = vars(self.call.receiver).values() if self.point.on is PIPELINE else ()
        return [*self.models, *(value for value in around if weights.is_model(value))]


@dataclass
class AdapterNames:
    """Tells adapters apart: by a name or a path, and state dicts by their first tensor while it lives."""

    _known: dict[int, tuple[weakref.ref[Any], str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def of(self, step: Step) -> list[str | None]:
        """Return the names of the adapters of a call; None stands for all that there are, or an unknown one."""
        if not step.point.adapter:
            return [None]
        given = (step.call.get(argument) for argument in step.point.adapter)
        value = next((value for value in given if value is not None), None)
        if isinstance(value, list | tuple):
            return [str(each) for each in value] or [None]
        return [self._named(value)]

    def source(self, step: Step) -> str | None:
        """Return what the adapter of a call is read from: its source, or the last of what may name it."""
        parts = [self._named(step.call.get(argument)) for argument in step.point.source or step.point.adapter[-1:]]
        return "/".join(filter(None, parts)) if parts and parts[0] is not None else None

    def _named(self, value: Any) -> str | None:
        if isinstance(value, Mapping):
            return self._state(next(iter(value.values()), None))
        path = getattr(value, "path", value)
        return None if path is None else str(path)

    def _state(self, tensor: Any) -> str | None:
        if tensor is None:
            return None
        known = self._known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            known = self._known[id(tensor)] = weakref.ref(tensor), f"state dict {next(self._numbers)}"
        return known[1]
