"""LRP108 fused-twice."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, fused, last

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

    def _same(self, history: History, event: Event) -> Event | None:
        """Return what fused the same adapter, or the same ones where none is named."""
        if event.adapter is not None:
            return next((each for each in fused(history) if each.adapter == event.adapter), None)
        before = last(history, *_CHANGING)
        return before if event.every and before is not None and before.every else None
