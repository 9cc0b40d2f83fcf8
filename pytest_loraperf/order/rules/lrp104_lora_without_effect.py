"""LRP104 lora-without-effect."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation


class LoraWithoutEffect(Rule):
    """An adapter that matches no layer, or only a part of its layers, changes less than it was trained to.

    Loaders skip keys that they do not know, and say nothing or "0 tensors are updated": a prefix of another
    library is enough. Only a run knows which layers there are.
    """

    code = "LRP104"
    name = "lora-without-effect"
    fix = "check the adapter's key prefix and the model that it was trained for"
    static = False

    def check(self, history: History, event: Event) -> Violation | None:  # noqa: ARG002 - the event says it all
        """Return what is wrong with this event."""
        if event.kind not in (Kind.ATTACH, Kind.FUSE) or event.layers is None:
            return None
        if event.layers == 0:
            return self.broken(event, None, f"{event.call} changed no layer: the LoRA has no effect")
        if event.total is not None and event.layers < event.total:
            what = f"{event.call} changed {event.layers} of the {event.total} layers that the LoRA is for"
            return self.broken(event, None, what)
        return None
