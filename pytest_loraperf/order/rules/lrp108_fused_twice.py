"""LRP108 fused-twice."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, fused


class FusedTwice(Rule):
    """The same adapter fused twice has twice its strength, and unfusing once leaves one behind."""

    code = "LRP108"
    name = "fused-twice"
    fix = "fuse once, or unfuse before fusing again"
    valid = (
        """\
loader.fuse_lora_to_base_model(pipe.dit, lora)
loader.fuse_lora_to_base_model(pipe.dit, other)
""",
    )
    invalid = (
        """\
loader.fuse_lora_to_base_model(pipe.dit, lora)
loader.fuse_lora_to_base_model(pipe.dit, lora)
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        if event.kind is not Kind.FUSE or event.adapter is None:
            return None
        same = next((each for each in fused(history) if each.adapter == event.adapter), None)
        if same is None:
            return None
        return self.broken(
            event, same, f"{event.call} fuses {event.adapter} again, after {same.call} ({same.where})"
        )
