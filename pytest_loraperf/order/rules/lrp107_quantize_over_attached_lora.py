"""LRP107 quantize-over-attached-lora."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, attached


class QuantizeOverAttachedLora(Rule):
    """Quantizing a module that has an adapter attached quantizes the adapter too, or loses it.

    A quantizer that walks over all Linear layers finds the adapter's as well: small matrices that lose most by
    it. One that replaces layers drops what was attached to them. Wrapping an already wrapped DiffSynth Linear
    again loses its LoRA.
    """

    code = "LRP107"
    name = "quantize-over-attached-lora"
    fix = (
        "fuse the LoRA before quantizing, or pass a filter that leaves the adapter out (filter_fn, target_modules)"
    )
    valid = (
        """\
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
quantize_(pipe.transformer, Float8WeightOnlyConfig())
""",
        """\
model = get_peft_model(model, LoraConfig())
quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: "lora_" not in name)
""",
    )
    invalid = (
        """\
model = get_peft_model(model, LoraConfig())
quantize_(model, Int8WeightOnlyConfig())
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        if event.kind is not Kind.QUANTIZE or event.filtered or event.needs_fp8:
            return None
        adapters = attached(history)
        if not adapters:
            return None
        first = adapters[0]
        return self.broken(
            event, first, f"{event.call} quantizes over the LoRA that {first.call} attached ({first.where})"
        )
