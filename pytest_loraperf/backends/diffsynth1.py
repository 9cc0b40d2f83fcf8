"""DiffSynth-Studio 1.1: the steps, carried out with its own classes and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from pytest_loraperf.backends import managed1, offloading, parking, quantization
from pytest_loraperf.backends.blocks import inside, own_code, repeated_blocks
from pytest_loraperf.backends.generation import check, generate
from pytest_loraperf.backends.pretrained import build_pretrained
from pytest_loraperf.backends.protocol import Choices, Generation, Recipe, StepEffect
from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.backends.recipes import with_compile
from pytest_loraperf.backends.synthetic1 import build_synthetic
from pytest_loraperf.backends.user_built import build_users
from pytest_loraperf.errors import ModelError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import Match, linear_shapes
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.models import ModelSpec, Pretrained, Synthetic
from pytest_loraperf.order.runtime.declared import declared
from pytest_loraperf.registry import QWEN_IMAGE
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, StepKind, Strategy

DTYPE = torch.bfloat16
SCHEMES = (quantization.STORAGE, quantization.COMPUTE, managed1.LOADED)


class DiffSynth1:
    """The backend of DiffSynth 1.1: pipelines whose LoRA goes into ``pipe.dit``."""

    name = "diffsynth1"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.version = metadata.version("diffsynth")

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        """Choose the schemes, and add or take away compile as ``--loraperf-compile`` says.

        Raises:
            StrategyError: 1.1 has no such scheme.
        """
        scheme = reason = None
        if strategy.has(StepKind.QUANTIZE):
            scheme, reason = _choose_scheme(strategy, device, choices)
            strategy = strategy.with_scheme(scheme)
        strategy = offloading.decided(strategy, device, choices, (offloading.DIFFSYNTH,))
        return with_compile(strategy, choices, scheme, reason, moves=managed1.may_be_offloaded(strategy))

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> Any:
        """Build the pipeline.

        Raises:
            ModelError: the model cannot be built; the message has the cause.
        """
        compute, weights_on = device.torch_name, "cpu" if on_cpu else device.torch_name
        with quiet():
            if isinstance(model, Synthetic):
                _check_pipeline(model)
                return build_synthetic(
                    model.size, seed=model.seed, device=compute, weights_on=weights_on, dtype=DTYPE
                )
            if isinstance(model, Pretrained):
                return build_pretrained(model.source, device=compute, weights_on=weights_on, dtype=DTYPE)
            return build_users(model, compute, weights_on)

    def lora_shapes(self, pipeline: Any) -> dict[str, tuple[int, int]]:
        """Return the Linear layers of ``pipe.dit``, as (out_features, in_features)."""
        return linear_shapes(pipeline.dit)

    def lora_names(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:  # noqa: ARG002 - the protocol's
        """Return the tensors as they are: 1.1 converts those of FLUX alone, and inside of its pipeline."""
        return tensors

    def lora_loaded(self, pipeline: Any, tensors: dict[str, torch.Tensor]) -> set[str]:
        """Return the layers that ``pipe.load_lora`` finds by the names of a file's tensors."""
        from diffsynth.lora import GeneralLoRALoader  # noqa: PLC0415 - heavy
        from diffsynth.lora.flux_lora import FluxLoRALoader  # noqa: PLC0415 - heavy

        is_flux = type(pipeline).__name__.startswith("Flux")
        named = FluxLoRALoader().convert_state_dict(tensors) if is_flux else tensors
        return set(GeneralLoRALoader().get_name_dict(named)) & self.lora_shapes(pipeline).keys()

    def lora_targets(self, pipeline: Any) -> list[str]:
        """Return the Linear layers inside the repeated blocks of ``pipe.dit``, or all where it has none."""
        return inside(self.lora_shapes(pipeline), _blocks(pipeline.dit))

    def apply(self, pipeline: Any, step: Step, adapters: Sequence[Match]) -> StepEffect:
        """Carry out one step on ``pipe.dit``, or on the whole pipeline for offload."""
        with quiet(), torch.no_grad(), declared():
            match StepKind(step.kind):
                case StepKind.ATTACH:
                    return self._attach(pipeline, adapters)
                case StepKind.FUSE:
                    return self._fuse(pipeline, adapters)
                case StepKind.QUANTIZE:
                    quantization.check_scheme(str(step.scheme), self.device, SCHEMES)
                    return managed1.quantize(pipeline, str(step.scheme))
                case StepKind.OFFLOAD:
                    return managed1.offload(pipeline, step.card or self.device.total)
                case StepKind.COMPILE:
                    return self._compile(pipeline)

    def take_base(self, pipeline: Any, effect: EffectProbe) -> None:
        """Show the probe the Linear layers of ``pipe.dit``."""
        effect.take_base(pipeline.dit.get_submodule, pipeline.device)

    def effect_gains(self, pipeline: Any, effect: EffectProbe) -> dict[str, float]:
        """Return the effect gains of the layers of ``pipe.dit``, whatever wraps them by now."""
        return effect.gains(pipeline.dit.get_submodule, pipeline.device, pipeline.torch_dtype)

    def check(self, pipeline: Any, request: Request) -> None:
        """Refuse too few steps, and a size that DiffSynth would round."""
        check(pipeline, request)

    def generate(self, pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run DiffSynth's own ``__call__``, keep the latents that it decodes, and tell of the steps."""
        return generate(pipeline, request, tick)

    def park(self, pipeline: Any, kept: parking.Parked | None = None) -> parking.Parked:
        """Move what its modules hold on the computing device into host memory.

        Raises:
            RuntimeError: host memory is short.
        """
        return parking.park(pipeline, pipeline.device, kept)

    def unpark(self, pipeline: Any, parked: parking.Parked) -> None:  # noqa: ARG002 - what is parked knows its tensors
        """Move it back to where it was.

        Raises:
            RuntimeError: the device has no room.
        """
        parking.unpark(parked)

    def _attach(self, pipe: Any, adapters: Sequence[Match]) -> StepEffect:
        able = managed1.hot_loadable(pipe)
        for adapter in adapters:
            # 1.1 looks for names with "default" in them, and for no others.
            state = {
                key.replace(".weight", ".default.weight"): tensor.to(pipe.device, pipe.torch_dtype)
                for key, tensor in adapter.state_dict().items()
            }
            pipe.load_lora(pipe.dit, state_dict=state, alpha=adapter.scale, hotload=True)
        return StepEffect(managed1.attached(able), len(able))

    def _fuse(self, pipe: Any, adapters: Sequence[Match]) -> StepEffect:
        from diffsynth.lora import GeneralLoRALoader  # noqa: PLC0415 - heavy

        loader = GeneralLoRALoader(torch_dtype=pipe.torch_dtype, device=pipe.device)
        for adapter in adapters:
            loader.load(pipe.dit, adapter.state_dict(), alpha=adapter.scale)
        fused = {name for adapter in adapters for name in adapter.matched}
        return StepEffect(len(fused), len(self.lora_shapes(pipe)))

    def _compile(self, pipe: Any) -> StepEffect:
        """Compile block by block with PyTorch itself: 1.1 has no call for it."""
        blocks = [block for _, block in _blocks(pipe.dit)]
        own_code(blocks)
        for block in blocks:
            block.compile()
        done = sum(block._compiled_call_impl is not None for block in blocks)  # noqa: SLF001 - nn.Module.compile leaves no other trace
        return StepEffect(done, len(blocks))


def _check_pipeline(model: Synthetic) -> None:
    if model.pipeline != QWEN_IMAGE:
        raise ModelError(
            f"model {model}: the backend diffsynth1 builds synthetic:tiny and synthetic:full, which are "
            f"{QWEN_IMAGE}; for other pipelines use DiffSynth 2.1 or later, or a build function"
        )


def _blocks(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the repeated blocks by name: the entries of the lists of modules; 2.x names their classes instead."""
    found = [
        (f"{name}.{index}", block)
        for name, part in module.named_children()
        if isinstance(part, torch.nn.ModuleList)
        for index, block in enumerate(part)
    ]
    return found or repeated_blocks(module)


def _choose_scheme(strategy: Strategy, device: Device, choices: Choices) -> tuple[str, str]:
    """Return the scheme of the quantize steps, and why: ``auto`` never is torchao's, which 1.1 does not know."""
    named = all(step.scheme for step in strategy.steps if step.kind is StepKind.QUANTIZE)
    if choices.scheme != "auto" or named:
        return quantization.choose_scheme(strategy, device, choices, SCHEMES)
    strategy = strategy.with_scheme(quantization.STORAGE)
    quantization.choose_scheme(strategy, device, choices, SCHEMES)  # what some steps name is checked too
    return quantization.STORAGE, "DiffSynth 1.1 computes in fp8 with a scale made on the CPU in each layer"
