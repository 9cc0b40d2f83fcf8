"""LRP102 attach-after-quantize."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, quantized


class AttachAfterQuantize(Rule):
    """A LoRA on an already quantized model is right but slow, and it can no longer be fused well.

    The adapter stays in full precision beside the quantized weights, so each layer runs two more products, and
    where the model is compiled, wrapping its layers breaks the graph. Measured on the 20 B-parameter Qwen-Image
    DiT with torchao's fp8 and compile (H100): 1.861 s a generation for quantize, then attach, against 0.490 s
    for fuse, then quantize: 3.8 times as long. Loading is slower too, 4 to 6 times in DiffSynth 1.1, and fusing
    later is LRP101.

    Training is another matter: QLoRA's adapters belong on a quantized model, so a file that makes an optimizer or
    a trainer is left alone.
    """

    code = "LRP102"
    name = "attach-after-quantize"
    fix = "load or fuse the LoRA first, then quantize"
    applies_to = "all libraries; DiffSynth before 2.1 fuses into weights loaded as fp8, which is LRP101"
    valid = (
        """\
pipe.load_lora(pipe.dit, lora_path)
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
    )
    invalid = (
        """\
pipe.enable_vram_management(enable_dit_fp8_computation=True)
pipe.load_lora(pipe.dit, lora_path)
""",
        """\
model = AutoModel.from_pretrained("x", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
model.add_adapter(LoraConfig())
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        done = quantized(history) if event.kind is Kind.ATTACH else None
        if done is None:
            return None
        what = (
            f"{event.call} attaches a LoRA to a model that {done.call} quantized ({done.where}): right, but slow"
        )
        return self.broken(event, done, what)
