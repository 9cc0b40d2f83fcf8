"""What a user's build function returns for the backend diffusers, and what is refused of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxKontextPipeline, FluxPipeline
from peft import LoraConfig

from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.errors import LoraperfError, ModelError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import UserBuilt, parse_model
from pytest_loraperf.request import Request

CPU = Device("cpu", "CPU")


def built(change: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A build function that changes a tiny pipeline before it returns it, or returns another."""

    def build(device: str) -> Any:
        pipe = Diffusers(CPU).build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=device == "cpu")
        return change(pipe) or pipe

    return build


def int8(pipe: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(pipe.transformer, Int8WeightOnlyConfig(set_inductor_config=False))


def cast(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)


def compiled(pipe: Any) -> None:
    pipe.transformer.compile_repeated_blocks()


def compiled_whole(pipe: Any) -> None:
    pipe.transformer = torch.compile(pipe.transformer)


def with_lora(pipe: Any) -> None:
    pipe.transformer.add_adapter(LoraConfig(target_modules=["to_q"]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda pipe: pipe.to(torch.float32), "whose weights are torch.float32"),
        (lambda pipe: pipe.to(torch.float16), "whose weights are torch.float16"),
        (int8, "whose weights are Int8Tensor"),
        (cast, "that is cast when it is called"),
        (compiled, "that is compiled"),
        (compiled_whole, "that is compiled"),
        (with_lora, "that has an adapter"),
    ],
)
def test_a_transformer_that_is_prepared_is_refused(change: Callable[[Any], Any], found: str) -> None:
    with pytest.raises(ModelError) as caught:
        Diffusers(CPU).build(UserBuilt(built(change), "build"), CPU, on_cpu=True)
    assert str(caught.value) == (
        f"the build function build returned a transformer {found}; return it as it is loaded, with "
        "torch_dtype=torch.bfloat16: what is to be done to it is the strategy's steps"
    )


def test_one_that_keeps_layers_beside_its_blocks_in_float32_is_not() -> None:
    def keep(pipe: Any) -> None:
        pipe.transformer.proj_out.to(torch.float32)

    pipe = Diffusers(CPU).build(UserBuilt(built(keep), "build"), CPU, on_cpu=True)
    assert pipe.transformer.proj_out.weight.dtype is torch.float32


def test_a_pipeline_of_another_kind_is_refused() -> None:
    class Other(DiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.register_modules(transformer=transformer)

        def __call__(self, prompt: str, height: int, width: int) -> None: ...

    with pytest.raises(ModelError) as caught:
        Diffusers(CPU).build(UserBuilt(built(lambda pipe: Other(pipe.transformer)), "build"), CPU, on_cpu=True)
    assert str(caught.value) == (
        "the build function build returned Other, which takes no true_cfg_scale, num_inference_steps, generator, "
        "callback_on_step_end; this backend calls QwenImagePipeline, FluxPipeline and what takes the same; hold "
        "others by gpu_workload"
    )


def test_a_vae_of_fewer_levels_has_larger_latents() -> None:
    backend = Diffusers(CPU)
    pipe = backend.build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=True)
    levels: dict[str, Any] = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    vae = AutoencoderKL(**levels, latent_channels=16, norm_num_groups=1, shift_factor=0.1).to(torch.bfloat16)
    small = FluxPipeline(**{**pipe.components, "vae": vae})
    assert small.vae_scale_factor == 2
    request = Request(height=64, width=64, steps=2)
    backend.check(small, request)
    found = backend.generate(small, request)
    assert found.latents.shape == (1, 16, 32, 32)
    assert found.image is not None
    assert found.image.size == (64, 64)


@pytest.mark.parametrize(
    ("kind", "extra", "shape"),
    [(None, {"num_images_per_prompt": 2}, r"\(2, 16, 64\)"), (FluxKontextPipeline, {}, r"\(1, 4096, 64\)")],
)
def test_what_is_not_one_image_of_the_size_is_refused(kind: Any, extra: dict[str, Any], shape: str) -> None:
    backend = Diffusers(CPU)
    pipe = backend.build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=True)
    if kind is not None:
        pipe = kind(**pipe.components)
    name = type(pipe).__name__
    with pytest.raises(
        LoraperfError,
        match=rf"request: height=64, width=64: {name} made latents of shape {shape}, and one image of this size is "
        r"\(1, 16, \.\.\.\); leave num_images_per_prompt out of extra, and give what keeps it to the size, such as "
        "_auto_resize=False",
    ):
        backend.generate(pipe, Request(height=64, width=64, steps=2, extra=extra))
