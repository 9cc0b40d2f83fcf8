"""LRP101 fuse-into-quantized."""

from __future__ import annotations

from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.rules.base import History, Rule, Violation, quantized


class FuseIntoQuantized(Rule):
    """Fusing into quantized weights rounds the sum to the quantized grid: the LoRA fades, or is lost.

    A LoRA's part of a weight is small: half a percent to a few percent of it. fp8 (e4m3) keeps three bits of
    mantissa, so a sum that differs by less than about six percent rounds back to what was there. Measured on a
    Linear with unscaled fp8 weights, an adapter of 1.5 % kept 0.06 of its effect, one of 5 % kept 0.92, while
    fusing first and quantizing then kept 0.996 and more of both. The loaders report that the tensors are fused
    in either case.

    How the weights became quantized does not matter: by a quantizer, by a quantized load, or by a cast to
    float8. Attaching the LoRA before it is fused, as diffusers and peft ask for, is LRP102 besides.
    """

    code = "LRP101"
    name = "fuse-into-quantized"
    fix = "fuse the LoRA into the full-precision weights first, then quantize"
    valid = (
        """\
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
quantize_(pipe.transformer, Float8WeightOnlyConfig())
""",
        """\
loader = GeneralLoRALoader(torch_dtype=torch.bfloat16, device="cuda")
loader.fuse_lora_to_base_model(pipe.dit, lora, alpha=1.0)
QuantizeConfig(method="torchao_fp8_w8a8").quantize_model(pipe.dit)
""",
    )
    invalid = (
        """\
QuantizeConfig(method="torchao_fp8_w8a8").quantize_model(pipe.dit)
pipe.load_lora(pipe.dit, "a.safetensors")
""",
        """\
QuantizeConfig(method="torchao_fp8_w8a8").quantize_model(pipe.dit)
loader = GeneralLoRALoader(torch_dtype=torch.bfloat16, device="cuda")
loader.fuse_lora_to_base_model(pipe.dit, lora, alpha=1.0)
""",
        """\
quantize_(pipe.transformer, Float8WeightOnlyConfig())
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
""",
        """\
config = PipelineQuantizationConfig(quant_backend="bitsandbytes_4bit")
pipe = FluxPipeline.from_pretrained("x", quantization_config=config)
pipe.load_lora_weights("a.safetensors")
pipe.fuse_lora()
""",
    )

    def check(self, history: History, event: Event) -> Violation | None:
        """Return what is wrong with this event."""
        done = quantized(history) if event.kind is Kind.FUSE else None
        if done is None:
            return None
        what = f"{event.call} fuses a LoRA into weights that {done.call} quantized ({done.where}): it fades"
        return self.broken(event, done, what)
