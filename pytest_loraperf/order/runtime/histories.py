"""What was done to each model, kept for as long as the model lives."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple

from pytest_loraperf.order.events import Event


class _Record(NamedTuple):
    model: weakref.ref[Any]
    events: dict[Event, int]


@dataclass
class Histories:
    """Events by the ``nn.Module`` that they were done to; none is kept alive.

    A part of a model, and what a model is a part of, share its history while they are that. What is done again
    from the same place counts as done last: a loop adds nothing.
    """

    _records: dict[int, _Record] = field(default_factory=dict)
    _clock: Iterator[int] = field(default_factory=count)

    def add(self, model: Any, event: Event) -> None:
        """Note an event on a model."""
        if id(model) not in self._records:
            self._records[id(model)] = _Record(weakref.ref(model, self._forget(id(model))), {})
        self._records[id(model)].events[event] = next(self._clock)

    def start_anew(self, model: Any) -> None:
        """Forget what was done to a model: it was loaded again."""
        self._records.pop(id(model), None)

    def of(self, model: Any) -> list[Event]:
        """Return what was done to a model, to its parts, and to what it is a part of, in order."""
        found = [pair for record in self._related(model) for pair in record.events.items()]
        return [event for event, _ in sorted(found, key=itemgetter(1))]

    def _related(self, model: Any) -> Iterator[_Record]:
        others = {key: record for key, record in list(self._records.items()) if key != id(model)}
        if id(model) in self._records:
            yield self._records[id(model)]
        inside = {id(part) for part in model.modules()} if others else set()
        for key, record in others.items():
            other = record.model()
            if other is not None and (key in inside or any(part is model for part in other.modules())):
                yield record

    def _forget(self, key: int) -> Any:
        records = self._records  # not self: the callback must not keep the recorder

        def gone(model: weakref.ref[Any]) -> None:
            if key in records and records[key].model is model:
                del records[key]

        return gone
