"""LRP103 quantize-without-effect."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, quantized


class QuantizeWithoutEffect(Rule):
    """A quantization that changes nothing leaves the model as large as it was, and often slower.

    DiffSynth 1.1's ``enable_vram_management(enable_dit_fp8_computation=True)`` casts weights to the dtype that
    they were loaded with: on a DiT that was loaded as bf16 no layer becomes fp8, and every model is moved to the
    CPU and back on each generation, which then took 17 times as long (20 layers, H100). At run time, any
    quantize step that changed no layer is found.
    """

    code = "LRP103"
    name = "quantize-without-effect"
    fix = "load the weights as fp8 (ModelConfig(offload_dtype=torch.float8_e4m3fn)), or use another scheme"
    applies_to = "statically DiffSynth 1.1; at run time every library"
    valid = (
        """\
pipe = QwenImagePipeline.from_pretrained(model_configs=[ModelConfig("x", offload_dtype=torch.float8_e4m3fn)])
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
        """\
pipe = QwenImagePipeline.from_pretrained(torch_dtype=torch.bfloat16, model_configs=[ModelConfig("x")])
pipe.load_lora(pipe.dit, "a.safetensors")
pipe.dit.to(torch.float8_e4m3fn)
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
    )
    invalid = (
        """\
pipe = QwenImagePipeline.from_pretrained(torch_dtype=torch.bfloat16, model_configs=[ModelConfig("x")])
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        if event.kind is not Kind.QUANTIZE:
            return None
        if event.layers == 0:
            return self.broken(event, None, f"{event.call} quantized none of {event.total} layers")
        loads = [each for each in history if each.kind is Kind.LOAD]
        if event.needs_fp8 and loads and quantized(history) is None:
            what = f"{event.call} quantizes nothing: {loads[-1].call} did not load fp8 weights ({loads[-1].where})"
            return self.broken(event, loads[-1], what)
        return None
