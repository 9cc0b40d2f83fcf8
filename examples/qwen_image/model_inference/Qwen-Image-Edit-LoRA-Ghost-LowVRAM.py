"""Qwen-Image-Edit with a LoRA on a card of 8 GB: load it, quantize, stream the blocks from the host."""

import torch
from diffsynth.core import AutoWrappedLinear
from diffsynth.pipelines.qwen_image import QwenImagePipeline
from ghost import files, options, save, synthetic

from pytest_loraperf.backends.streaming import stream_blocks
from pytest_loraperf.lora import lora_state_dict

given = options(__doc__, vram="8GB")

if given.synthetic:
    pipe = synthetic(given, weights_on="cpu")
else:
    home = {"computation_device": "cpu"}  # the card never holds the whole model
    pipe = QwenImagePipeline.from_pretrained(
        torch_dtype=torch.bfloat16,
        device=given.device,
        model_configs=[
            files(given.model, "transformer/diffusion_pytorch_model*.safetensors", **home),
            files(given.model, "text_encoder/model*.safetensors", "Qwen/Qwen-Image", **home),
            files(given.model, "vae/diffusion_pytorch_model.safetensors", "Qwen/Qwen-Image", **home),
        ],
        tokenizer_config=files(given.model, "tokenizer/", "Qwen/Qwen-Image"),
        processor_config=files(given.model, "processor/", "Qwen/Qwen-Image-Edit"),
    )

# Attach the LoRA: it is added at run time, and can be taken off again.
pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)
lora = lora_state_dict(given.lora, pipe.dit, pipe.torch_dtype, pipe.device)
pipe.load_lora(pipe.dit, state_dict=lora, alpha=given.alpha, hotload=True)
del lora  # the layers have it

# Quantize: fp8 weights, bf16 compute; a LoRA that is attached stays bf16.
pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)
fp8, bf16 = torch.float8_e4m3fn, torch.bfloat16
for linear in pipe.dit.modules():
    if isinstance(linear, AutoWrappedLinear):
        linear.set_dtype_and_device(fp8, pipe.device, fp8, pipe.device, fp8, pipe.device, bf16, pipe.device)
        linear.to(device=pipe.device).to(dtype=fp8).to(device="cpu")

# Offload last: blocks wait in pinned host memory, and come to a card of this size for their call.
stream_blocks(pipe, given.vram)

image = pipe(
    prompt=given.prompt,
    edit_image=given.image,
    cfg_scale=given.cfg,
    height=given.height,
    width=given.width,
    num_inference_steps=given.steps,
    seed=given.seed,
)
save(image, given)
