"""LRP108 fused-twice."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, attached, fused, last

_CHANGING = (Kind.ATTACH, Kind.DETACH, Kind.FUSE, Kind.UNFUSE, Kind.SELECT, Kind.LOAD)
"""What changes which adapters are there, active or fused."""


class FusedTwice(Rule):
    """The same adapter fused twice has twice its strength, and unfusing once leaves one behind.

    Newer versions of peft leave weights alone that hold the adapter already, with a warning. The second scale of
    ``fuse_lora(lora_scale=0.5)`` after ``fuse_lora()`` is then not applied, but unfusing takes that part away.
    """

    code = "LRP108"
    name = "fused-twice"
    fix = "fuse once, or unfuse before fusing again"
    valid = (
        """\
for path in ("a.safetensors", "b.safetensors"):
    pipe.load_lora_weights(path, adapter_name="style")
    pipe.fuse_lora(adapter_names=["style"])
    pipe.unload_lora_weights()
""",
        """\
loader.fuse_lora_to_base_model(pipe.dit, lora)
loader.fuse_lora_to_base_model(pipe.dit, other)
""",
        """\
for scale in (0.5, 1.0):
    pipe.fuse_lora(lora_scale=scale)
    pipe("a cat")
    pipe.unfuse_lora()
""",
    )
    invalid = (
        """\
loader.fuse_lora_to_base_model(pipe.dit, lora)
loader.fuse_lora_to_base_model(pipe.dit, lora)
""",
        """\
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
pipe.fuse_lora()
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        same = self._same(history, event) if event.kind is Kind.FUSE else None
        if same is None:
            return None
        what = event.adapter or same.adapter or "what is fused"
        return self.broken(event, same, f"{event.call} fuses {what} again, after {same.call} ({same.where})")

    def _same_adapter(self, history: History, event: Event) -> Event | None:
        """Return what fused the event's adapter: not one that had its name before, and was read from elsewhere."""
        now = _attaching(history, event)
        for each in fused(history):
            # By identity: a loop's fuses are equal, and what they fused is not.
            place = next(place for place, done in enumerate(history) if done is each)
            then = _attaching(history[:place], each)
            if each.adapter == event.adapter and not (now and then and _is_another(now, then)):
                return each
        return None

    def _same(self, history: History, event: Event) -> Event | None:
        """Return what fused the same adapter, or the same ones where none is named."""
        if event.adapter is not None:
            return self._same_adapter(history, event)
        before = last(history, *_CHANGING)
        if not event.every:
            return None
        return before if before is not None and before.every else _fused_before(history)


def _fused_before(history: History) -> Event | None:
    """Return what fused an adapter that was attached from the same source again since."""
    now = {(each.adapter, each.source) for each in attached(history) if each.source is not None}
    for place, each in enumerate(history):
        is_there = each.every and any(each is other for other in fused(history))
        if is_there and any((then.adapter, then.source) in now for then in attached(history[:place])):
            return each
    return None


def _attaching(history: History, fusing: Event) -> Event | None:
    """Return what attached the adapter that an event fuses, if that is there."""
    return next(
        (each for each in reversed(history) if each.kind is Kind.ATTACH and each.adapter == fusing.adapter), None
    )


def _is_another(now: Event, then: Event) -> bool:
    """Return whether what was attached is not known to be what was attached under that name before."""
    return now is not then and (now.source is None or now.source != then.source)
