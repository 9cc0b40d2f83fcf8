"""LRP106 fuse-after-offload."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, last, since


class FuseAfterOffload(Rule):
    """Fusing after CPU offloading was enabled changes weights that are elsewhere, or that are put back unchanged.

    Offloading keeps the weights in host memory and copies them over for each call: what is fused into the copy
    is thrown away, and what is fused on the CPU takes minutes. Several libraries raise on meta tensors instead.
    """

    code = "LRP106"
    name = "fuse-after-offload"
    fix = "fuse the LoRA first, then enable offloading"
    valid = (
        """\
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
pipe.enable_model_cpu_offload()
""",
        """\
pipe.enable_model_cpu_offload()
pipe.load_lora_weights("a.safetensors")
pipe.remove_all_hooks()
pipe.fuse_lora()
""",
    )
    invalid = (
        """\
pipe.enable_sequential_cpu_offload()
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        done = last(since(history, Kind.ONLOAD), Kind.OFFLOAD) if event.kind is Kind.FUSE else None
        if done is None:
            return None
        return self.broken(
            event, done, f"{event.call} fuses a LoRA after {done.call} offloaded the model ({done.where})"
        )
