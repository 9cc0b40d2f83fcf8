"""LRP109 hotswap-late."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, loaded


class HotswapLate(Rule):
    """A late ``enable_lora_hotswap`` raises: it must come before the first adapter, whose matrices it pads."""

    code = "LRP109"
    name = "hotswap-late"
    fix = "call enable_lora_hotswap before the first load_lora_weights"
    applies_to = "diffusers 0.33 and later"
    valid = (
        """\
pipe.enable_lora_hotswap(target_rank=64)
pipe.load_lora_weights("a.safetensors")
""",
        """\
pipe.load_lora_weights("a.safetensors")
pipe.unload_lora_weights()
pipe.enable_lora_hotswap(target_rank=64)
""",
    )
    invalid = (
        """\
pipe.load_lora_weights("a.safetensors")
pipe.enable_lora_hotswap(target_rank=64)
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        there = loaded(history) if event.kind is Kind.HOTSWAP else []
        if not there:
            return None
        done = there[-1]
        return self.broken(event, done, f"{event.call} comes after {done.call} loaded an adapter ({done.where})")
