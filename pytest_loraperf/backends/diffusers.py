"""diffusers: the steps, carried out with its own calls and PEFT's."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft, logging
from peft.tuners.tuners_utils import BaseTunerLayer
from torch._subclasses.fake_tensor import FakeTensor

from pytest_loraperf.backends import group_offloading, offloading, parking, quantization
from pytest_loraperf.backends.blocks import inside, own_code, repeated_blocks
from pytest_loraperf.backends.diffusers_models import build_pretrained, build_synthetic, seeded_prompt
from pytest_loraperf.backends.generation import check_extra, check_size, check_steps
from pytest_loraperf.backends.protocol import Choices, Generation, Recipe, StepEffect
from pytest_loraperf.backends.quiet import quiet, warnings_shown
from pytest_loraperf.backends.recipes import with_compile
from pytest_loraperf.backends.user_built import call_users
from pytest_loraperf.errors import LoraperfError, ModelError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import Match, linear_shapes
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.lora.keys import loaded
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.models import ModelSpec, Pretrained, Synthetic, UserBuilt
from pytest_loraperf.order.runtime.declared import declared
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, StepKind, Strategy

DTYPE = torch.bfloat16
SCHEMES = (quantization.STORAGE, quantization.TORCHAO)
FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "true_cfg_scale": "cfg",
    "height": "height",
    "width": "width",
    "num_inference_steps": "steps",
    "generator": "seed",
}
"""The arguments of diffusers' ``__call__`` that a request has fields for."""
REGISTRY = "_diffusers_hook"
"""Where diffusers keeps what it does around a module's calls."""
CALLED_WITH = ("true_cfg_scale", "height", "width", "num_inference_steps", "generator", "callback_on_step_end")
"""What every generation is called with."""


class Diffusers:
    """The backend of diffusers: pipelines whose LoRA goes into ``pipe.transformer``."""

    name = "diffusers"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.version = metadata.version("diffusers")

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        """Choose the schemes, and add or take away compile as ``--loraperf-compile`` says.

        Raises:
            StrategyError: the wanted scheme is unknown or cannot run here.
        """
        scheme = reason = None
        if strategy.has(StepKind.QUANTIZE):
            scheme, reason = quantization.choose_scheme(strategy, device, choices, SCHEMES)
            strategy = strategy.with_scheme(scheme)
        strategy = offloading.decided(strategy, device, choices, group_offloading.SCHEMES)
        return with_compile(strategy, choices, scheme, reason, moves=strategy.has(StepKind.OFFLOAD))

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> Any:
        """Build the pipeline.

        Raises:
            ModelError: the model cannot be built; the message has the cause.
        """
        compute, weights_on = device.torch_name, "cpu" if on_cpu else device.torch_name
        with _silent():
            if isinstance(model, Synthetic):
                return build_synthetic(model, device=compute, weights_on=weights_on, dtype=DTYPE)
            if isinstance(model, Pretrained):
                return build_pretrained(model.source, weights_on=weights_on, dtype=DTYPE)
            return _build_users(model, weights_on)

    def lora_shapes(self, pipeline: Any) -> dict[str, tuple[int, int]]:
        """Return the Linear layers of ``pipe.transformer``, as (out_features, in_features)."""
        return linear_shapes(pipeline.transformer)

    def lora_names(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return the tensors as the pipeline's own ``lora_state_dict`` converts them."""
        with _silent():
            found: dict[str, torch.Tensor] = pipeline.lora_state_dict(tensors)
        return found

    def lora_loaded(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> set[str]:
        """Return the layers that ``pipe.load_lora_weights`` finds by the names of a file's tensors."""
        prefix, named = f"{pipeline.transformer_name}.", self.lora_names(pipeline, tensors)
        mine = {key.removeprefix(prefix): each for key, each in named.items() if key.startswith(prefix)}
        if not any("lora_A" in key for key in mine):
            mine = convert_unet_state_dict_to_peft(mine)  # as it does with files of its older format
        return loaded(mine) & self.lora_shapes(pipeline).keys()

    def lora_targets(self, pipeline: Any) -> list[str]:
        """Return the Linear layers inside the repeated blocks of ``pipe.transformer``."""
        return inside(self.lora_shapes(pipeline), repeated_blocks(pipeline.transformer))

    def apply(self, pipeline: Any, step: Step, adapters: Sequence[Match]) -> StepEffect:
        """Carry out one step on ``pipe.transformer``, or on the whole pipeline for offload."""
        with _silent(), torch.no_grad(), declared():
            match StepKind(step.kind):
                case StepKind.ATTACH:
                    return self._attach(pipeline, adapters)
                case StepKind.FUSE:
                    return self._fuse(pipeline, adapters)
                case StepKind.QUANTIZE:
                    if step.scheme is None:
                        raise quantization.unsupported(str(step))
                    return self._quantize(pipeline, step.scheme)
                case StepKind.OFFLOAD:
                    card = step.card or self.device.total
                    return group_offloading.offload(pipeline, self.device.torch_name, card)
                case StepKind.COMPILE:
                    return self._compile(pipeline)

    def take_base(self, pipeline: Any, effect: EffectProbe) -> None:
        """Show the probe the Linear layers of ``pipe.transformer``."""
        effect.take_base(pipeline.transformer.get_submodule, self.device.torch_name)

    def effect_gains(self, pipeline: Any, effect: EffectProbe) -> dict[str, float]:
        """Return the effect gains of the layers of ``pipe.transformer``, PEFT's wrapper and all."""
        transformer = pipeline.transformer
        with group_offloading.brought(transformer):
            return effect.gains(transformer.get_submodule, self.device.torch_name, DTYPE)

    def check(self, pipeline: Any, request: Request) -> None:
        """Refuse what ``generate`` refuses, before it is called."""
        _check_arguments(pipeline, request)

    def generate(self, pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run diffusers' own ``__call__``, keep the latents of its last step, and tell of the steps."""
        _check_arguments(pipeline, request)
        device = self.device.torch_name
        arguments: dict[str, Any] = {
            "true_cfg_scale": request.cfg,
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.steps,
            "generator": torch.Generator("cpu").manual_seed(request.seed),
        }
        if pipeline.text_encoder is None:
            arguments |= seeded_prompt(pipeline, request.prompt, device, DTYPE)
        else:
            arguments["prompt"] = request.prompt
        if request.cfg > 1:
            if pipeline.text_encoder is None:
                negative = seeded_prompt(pipeline, request.negative_prompt, device, DTYPE)
                arguments |= {_negative(name): value for name, value in negative.items()}
            else:
                arguments["negative_prompt"] = request.negative_prompt
        seen: list[torch.Tensor] = []

        def keep(_pipe: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            seen[:] = [values["latents"]]
            return values

        arguments |= {"callback_on_step_end": keep, **request.extra}
        has_image = pipeline.vae is not None
        arguments["output_type"] = "pil" if has_image else "latent"
        with warnings_shown(), torch.no_grad(), _told(pipeline, tick):
            images = pipeline(**arguments).images
        _check_latents(pipeline, request, seen[0])
        return Generation(_unpacked(seen[0], request, _patch(pipeline)), images[0] if has_image else None)

    def park(self, pipeline: Any, kept: parking.Parked | None = None) -> parking.Parked:
        """Move what its modules hold on the computing device into host memory.

        Raises:
            RuntimeError: host memory is short, or a tensor is of a kind that cannot be moved.
        """
        return parking.park(_modules(pipeline), self.device.torch_name, kept)

    def unpark(
        self,
        pipeline: Any,  # noqa: ARG002 - what is parked knows its tensors
        parked: parking.Parked,
    ) -> None:
        """Move it back to where it was.

        Raises:
            RuntimeError: the device has no room.
        """
        parking.unpark(parked)

    def _attach(self, pipe: Any, adapters: Sequence[Match]) -> StepEffect:
        total = sum(1 for _ in _linears(pipe.transformer))
        names: list[str] = []
        with _lifted(pipe.transformer):
            for adapter in adapters:
                names.append(f"loraperf_{len(names)}")
                state = {f"transformer.{key}": value.to(DTYPE) for key, value in adapter.state_dict().items()}
                pipe.load_lora_weights(state, adapter_name=names[-1])
            pipe.set_adapters(names, adapter_weights=[adapter.scale for adapter in adapters])
        changed = sum(isinstance(layer, BaseTunerLayer) for layer in pipe.transformer.modules())
        return StepEffect(changed, total)

    def _fuse(self, pipe: Any, adapters: Sequence[Match]) -> StepEffect:
        effect = self._attach(pipe, adapters)
        with _lifted(pipe.transformer):
            with _merged_on(self.device.torch_name, pipe.transformer):
                pipe.fuse_lora(components=["transformer"])
            pipe.unload_lora_weights()
        return effect

    def _quantize(self, pipe: Any, scheme: str) -> StepEffect:
        quantization.check_scheme(scheme, self.device, SCHEMES)
        transformer = pipe.transformer
        linears = list(_linears(transformer))
        if scheme == quantization.STORAGE:
            transformer.enable_layerwise_casting(storage_dtype=quantization.FP8, compute_dtype=DTYPE)
            done = sum(layer.weight.dtype is quantization.FP8 for layer in linears)
        else:
            done = _quantize_torchao(transformer, linears)
        return StepEffect(done, len(linears))

    def _compile(self, pipe: Any) -> StepEffect:
        blocks = repeated_blocks(pipe.transformer)
        own_code([block for _, block in blocks])
        pipe.transformer.compile_repeated_blocks(dynamic=None)
        done = sum(block._compiled_call_impl is not None for _, block in blocks)  # noqa: SLF001 - nn.Module.compile leaves no other trace
        return StepEffect(done, len(blocks))


def _check_arguments(pipeline: Any, request: Request) -> None:
    """Refuse an image to edit, too few steps, arguments that are not taken or come from elsewhere, and a size.

    Latents are packed two by two: other sizes would be rounded.

    Raises:
        LoraperfError: the message says what is allowed.
    """
    if request.edit_image is not None:
        raise LoraperfError(
            "request: edit_image: the backend diffusers takes none; leave it out, or use diffsynth"
        )
    check_steps(pipeline, request)
    check_extra(pipeline, request, FIELDS, ("callback_on_step_end", "output_type"))
    factor = _patch(pipeline)
    check_size(pipeline, request, {"height": factor, "width": factor})


def _patch(pipeline: Any) -> int:
    """Return the pixels along the side of one token: two latents, each of so many that the VAE tells."""
    return 2 * int(pipeline.vae_scale_factor)


def _check_latents(pipeline: Any, request: Request, latents: torch.Tensor) -> None:
    """Refuse what is not one image of the size that was asked for: pipelines that edit choose their own.

    Raises:
        LoraperfError: the message has the shape.
    """
    patch = _patch(pipeline)
    tokens = (request.height // patch) * (request.width // patch)
    if tuple(latents.shape[:2]) != (1, tokens):
        raise LoraperfError(
            f"request: height={request.height}, width={request.width}: {type(pipeline).__name__} made latents of "
            f"shape {tuple(latents.shape)}, and one image of this size is (1, {tokens}, ...); leave "
            "num_images_per_prompt out of extra, and give what keeps it to the size, such as _auto_resize=False"
        )


def _linears(transformer: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    """Yield the model's own Linear layers, not those of a LoRA."""
    for name, layer in transformer.named_modules():
        if isinstance(layer, torch.nn.Linear) and ".lora_" not in name:
            yield layer


@contextlib.contextmanager
def _lifted(transformer: torch.nn.Module) -> Iterator[None]:
    """Hold weights that are stored as fp8 as bf16 for a while: PEFT cannot compute with them, nor add to them."""
    stored = [layer for layer in _linears(transformer) if layer.weight.dtype is quantization.FP8]
    for layer in stored:
        layer.to(DTYPE)
    try:
        yield
    finally:
        for layer in stored:
            layer.to(quantization.FP8)


@contextlib.contextmanager
def _merged_on(device: str, transformer: torch.nn.Module) -> Iterator[None]:
    """Let each layer be merged on the device, and its weight come back to where it was.

    A CPU takes half a minute for 20 B parameters in bf16, and PEFT rounds otherwise there.
    """
    layers: list[Any] = [layer for layer in transformer.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.merge = _on_device(device, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.merge


def _on_device(device: str, layer: Any) -> Callable[..., None]:
    merge = layer.merge

    @functools.wraps(merge)
    def moved(*args: Any, **kwargs: Any) -> None:
        kept = layer.base_layer.weight.data
        layer.to(device)
        merge(*args, **kwargs)
        if kept.device.type != layer.base_layer.weight.device.type:
            merged = layer.base_layer.weight.data
            layer.to(kept.device)
            layer.base_layer.weight.data = kept.copy_(merged)

    return moved


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep out of the terminal what diffusers logs of steps, on which nobody could act."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(before)


def _quantize_torchao(transformer: torch.nn.Module, linears: Sequence[torch.nn.Linear]) -> int:
    from torchao.quantization import (  # noqa: PLC0415 - optional
        Float8DynamicActivationFloat8WeightConfig,
        quantize_,
    )

    wanted = {id(layer) for layer in linears}
    before = {id(layer): type(layer.weight.data) for layer in linears}
    # torchao's default switches on inductor's tuning for the whole process: other arms would compile otherwise.
    # One scale a tensor, as in DiffSynth: with one a row, cuBLAS has no kernel on an H100 for a wide layer and the
    # few tokens of a prompt (https://github.com/pytorch/ao/issues/4582).
    config = Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False)
    quantize_(transformer, config, filter_fn=lambda layer, _: id(layer) in wanted)
    return sum(type(layer.weight.data) is not before[id(layer)] for layer in linears)


def _modules(pipe: Any) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(part for part in pipe.components.values() if isinstance(part, torch.nn.Module))


def _negative(name: str) -> str:
    return f"negative_{name}"


def _unpacked(latents: torch.Tensor, request: Request, patch: int) -> torch.Tensor:
    """Return latents of (1, tokens, 64), patches of 2 x 2, as (1, 16, height / 8, width / 8) where patch is 16."""
    height, width = request.height // patch, request.width // patch
    patches = latents.view(1, height, width, -1, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(1, -1, 2 * height, 2 * width)


@contextlib.contextmanager
def _told(pipe: Any, tick: Tick) -> Iterator[None]:
    """Tick where the bar of progress begins and where it goes on: as steps begin, and after the last."""

    class Bar:
        def update(self, *_: Any) -> None:
            tick()

    @contextlib.contextmanager
    def bar(*_: Any, **__: Any) -> Iterator[Bar]:
        tick()
        yield Bar()

    pipe.progress_bar = bar
    try:
        yield
    finally:
        del pipe.progress_bar


def _build_users(model: UserBuilt, weights_on: str) -> Any:
    pipe = call_users(model, weights_on)
    found = f"the build function {model.name} returned"
    if not isinstance(pipe, DiffusionPipeline) or not hasattr(pipe, "transformer"):
        raise ModelError(
            f"{found} {type(pipe).__name__}; "
            "a diffusers pipeline with a transformer is needed, such as QwenImagePipeline"
        )
    taken = inspect.signature(pipe.__call__).parameters
    if missing := [name for name in CALLED_WITH if name not in taken]:
        raise ModelError(
            f"{found} {type(pipe).__name__}, which takes no {', '.join(missing)}; this backend calls "
            "QwenImagePipeline, FluxPipeline and what takes the same; hold others by gpu_workload"
        )
    if prepared := _prepared(pipe.transformer):
        raise ModelError(
            f"{found} a transformer {prepared}; return it as it is loaded, with torch_dtype=torch.bfloat16: "
            "what is to be done to it is the strategy's steps"
        )
    return pipe


def _prepared(transformer: torch.nn.Module) -> str | None:
    """Say what was done to a transformer that a strategy's steps do, or None; its blocks are in bf16 then."""
    parts: list[Any] = list(transformer.modules())
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in parts):  # noqa: SLF001 - nn.Module.compile leaves no other trace
        return "that is compiled"
    if any(isinstance(part, BaseTunerLayer) for part in parts):
        return "that has an adapter"
    if any("layerwise_casting" in registry.hooks for part in parts if (registry := vars(part).get(REGISTRY))):
        return "that is cast when it is called"
    # Beside the blocks, models keep some layers in float32 that are to be.
    inner = [part for _, block in repeated_blocks(transformer) for part in block.modules()]
    weights: list[Any] = [part.weight for part in inner if isinstance(part, torch.nn.Linear)]
    for weight in weights:
        is_plain = type(weight) in {torch.nn.Parameter, FakeTensor}  # no torchao's or bitsandbytes'; in a forecast
        if not is_plain or weight.dtype is not DTYPE:
            return f"whose weights are {weight.dtype if is_plain else type(weight).__name__}"
    return None
