"""LRP105 lora-after-compile."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, last, loaded


class LoraAfterCompile(Rule):
    """A LoRA that comes after compiling recompiles the model, or is not in the compiled graph at all.

    Attaching wraps the layers that were compiled; fusing may replace weights that a captured graph still reads.
    diffusers swaps adapters of a compiled model in place: ``enable_lora_hotswap`` before the first adapter, and
    ``hotswap=True`` for those that follow. One that is added beside the first is compiled for again.
    """

    code = "LRP105"
    name = "lora-after-compile"
    fix = "attach or fuse the LoRA first, then compile"
    valid = (
        """\
pipe.load_lora_weights("a.safetensors")
pipe.transformer = torch.compile(pipe.transformer)
""",
        """\
pipe.enable_lora_hotswap(target_rank=64)
pipe.load_lora_weights("a.safetensors")
pipe.transformer.compile()
pipe.load_lora_weights("b.safetensors", hotswap=True)
""",
    )
    invalid = (
        """\
pipe.enable_lora_hotswap(target_rank=64)
pipe.load_lora_weights("a.safetensors", adapter_name="a")
pipe.transformer.compile()
pipe.load_lora_weights("b.safetensors", adapter_name="b")
""",
        """\
pipe.transformer = torch.compile(pipe.transformer)
pipe.load_lora_weights("a.safetensors")
""",
        """\
pipe.compile_pipeline()
pipe.load_lora(pipe.dit, "a.safetensors")
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        done = last(history, Kind.COMPILE) if event.kind in (Kind.ATTACH, Kind.FUSE) else None
        prepared = any(each.kind is Kind.HOTSWAP for each in history) and not loaded(history)
        if done is None or prepared:
            return None
        return self.broken(event, done, f"{event.call} changes a model that {done.call} compiled ({done.where})")
