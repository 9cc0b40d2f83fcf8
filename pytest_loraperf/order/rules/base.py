"""What a rule is, and the questions that rules ask of a model's history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_loraperf.order.events import Event, Kind

History = Sequence[Event]


@dataclass(frozen=True)
class Violation:
    """A broken rule: the event that breaks it, the earlier one that it conflicts with, and one line for the user.

    The line has what was found, what it costs, and the corrected order.
    """

    code: str
    name: str
    event: Event
    earlier: Event | None
    message: str


class Rule(ABC):
    """One rule on the order of operations.

    A subclass stands in a file of its own: its docstring says why, with what was measured; ``fix`` is the
    corrected order; ``applies_to`` the versions and capabilities that it depends on. ``valid`` and ``invalid``
    are samples of source: they are the rule's tests and its page. A rule that is not ``static`` needs what only
    a run knows; one that is not on by ``default`` is advice.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    fix: ClassVar[str]
    applies_to: ClassVar[str] = "all versions"
    static: ClassVar[bool] = True
    default: ClassVar[bool] = True
    valid: ClassVar[tuple[str, ...]] = ()
    invalid: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with doing this after that, or None.

        ``history`` has the earlier events on the same model, in their order.
        """

    def broken(self, event: Event, earlier: Event | None, what: str) -> Violation:
        """Return the violation; ``what`` is what was found and what it costs."""
        return Violation(self.code, self.name, event, earlier, f"{what}; {self.fix}")


def last(history: History, *kinds: Kind) -> Event | None:
    """Return the latest event of these kinds."""
    return next((event for event in reversed(history) if event.kind in kinds), None)


def since(history: History, kind: Kind) -> History:
    """Return the events after the latest of a kind, all where there is none."""
    places = [place for place, event in enumerate(history) if event.kind is kind]
    return history[places[-1] + 1 :] if places else history


def loaded(history: History) -> list[Event]:
    """Return the adapters that were attached and not detached since: fusing leaves them there."""
    found: list[Event] = []
    for event in history:
        if event.kind is Kind.ATTACH:
            found.append(event)
        elif event.kind is Kind.DETACH:
            found = _without(found, event)
    return found


def attached(history: History) -> list[Event]:
    """Return the attached adapters that are neither fused nor detached now."""
    found: list[Event] = []
    for place, event in enumerate(history):
        if event.kind is Kind.ATTACH:
            found.append(event)
        elif event.kind in (Kind.FUSE, Kind.DETACH):
            found = _without(found, event)
        elif event.kind is Kind.UNFUSE:
            found = loaded(history[:place])
    return found


def _without(adapters: list[Event], event: Event) -> list[Event]:
    """Return the adapters that an event is not about; one that names none is about all."""
    return [] if event.adapter is None else [each for each in adapters if each.adapter != event.adapter]


def fused(history: History) -> list[Event]:
    """Return the fused adapters that were not unfused since."""
    found: list[Event] = []
    for event in history:
        if event.kind is Kind.FUSE:
            found.append(event)
        elif event.kind is Kind.UNFUSE:
            found = []
    return found


def quantized(history: History) -> Event | None:
    """Return what quantized the weights, or None; what is known to have changed nothing did not."""
    history = since(history, Kind.DEQUANTIZE)
    loads = [event for event in history if event.kind is Kind.LOAD]
    plain = bool(loads) and not any(event.quantizes for event in loads)
    for event in history:
        if event.kind is Kind.LOAD and event.quantizes:
            return event
        if event.kind is Kind.QUANTIZE and event.layers != 0 and not (event.needs_fp8 and plain):
            return event
    return None
