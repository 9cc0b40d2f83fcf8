"""DiffSynth-Studio 2.x: the steps, carried out with its own classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import torch

from pytest_loraperf.backends import offloading, parking, quantization, streaming
from pytest_loraperf.backends.blocks import inside, own_code, repeated_blocks
from pytest_loraperf.backends.generation import check, generate
from pytest_loraperf.backends.pretrained import build_pretrained
from pytest_loraperf.backends.protocol import Choices, Generation, Recipe, StepEffect
from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.backends.recipes import with_compile
from pytest_loraperf.backends.synthetic import build_for
from pytest_loraperf.backends.undrawn import Layers, fuse_later, settle_all
from pytest_loraperf.backends.user_built import build_users
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import Match, linear_shapes
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.lora.keys import loaded
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.models import ModelSpec, Pretrained, Synthetic
from pytest_loraperf.order.runtime.declared import declared
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, StepKind, Strategy

if TYPE_CHECKING:
    from diffsynth.diffusion.base_pipeline import BasePipeline

DTYPE = torch.bfloat16


class DiffSynth:
    """The backend of DiffSynth 2.x: pipelines whose LoRA goes into ``pipe.dit``."""

    name = "diffsynth"

    def __init__(self, device: Device, *, draws_later: bool = False) -> None:
        """Take the device, and whether blocks that are to be offloaded may be without values until they are.

        Who changes weights between the steps by means of their own, as a backend that has this one inside may,
        would look for them in vain.
        """
        self.device = device
        self._draws_later = draws_later
        self.version = metadata.version("diffsynth")

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        """Choose the schemes, and add or take away compile as ``--loraperf-compile`` says.

        Raises:
            StrategyError: the wanted scheme is unknown or cannot run here.
        """
        scheme = reason = None
        if strategy.has(StepKind.QUANTIZE):
            scheme, reason = quantization.choose_scheme(strategy, device, choices)
            strategy = strategy.with_scheme(scheme)
        strategy = offloading.decided(strategy, device, choices)
        return with_compile(strategy, choices, scheme, reason, moves=strategy.has(StepKind.OFFLOAD))

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> BasePipeline:
        """Build the pipeline.

        Raises:
            ModelError: the model cannot be built; the message has the cause.
        """
        compute, weights_on = device.torch_name, "cpu" if on_cpu else device.torch_name
        with quiet():
            if isinstance(model, Synthetic):
                return build_for(model, compute, weights_on, DTYPE, draw_later=on_cpu and self._draws_later)
            if isinstance(model, Pretrained):
                return build_pretrained(model.source, device=compute, weights_on=weights_on, dtype=DTYPE)
            return build_users(model, compute, weights_on)

    def lora_shapes(self, pipeline: BasePipeline) -> dict[str, tuple[int, int]]:
        """Return the Linear layers of ``pipe.dit``, as (out_features, in_features)."""
        return linear_shapes(pipeline.dit)

    def lora_names(self, pipeline: BasePipeline, tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return the tensors as the pipeline's own LoRA loader converts them."""
        loader = pipeline.lora_loader(torch_dtype=pipeline.torch_dtype, device="cpu")
        found: dict[str, torch.Tensor] = loader.convert_state_dict(tensors)
        return found

    def lora_loaded(self, pipeline: BasePipeline, tensors: dict[str, torch.Tensor]) -> set[str] | None:
        """Return the layers that ``pipe.load_lora`` finds by the names of a file's tensors."""
        if getattr(pipeline, "lora_loader", None) is None:  # a user's own kind of pipeline
            return None
        with quiet():
            return loaded(self.lora_names(pipeline, tensors)) & self.lora_shapes(pipeline).keys()

    def lora_targets(self, pipeline: BasePipeline) -> list[str]:
        """Return the Linear layers inside the repeated blocks of ``pipe.dit``, or all where it names none."""
        return inside(self.lora_shapes(pipeline), repeated_blocks(pipeline.dit))

    def apply(self, pipeline: BasePipeline, step: Step, adapters: Sequence[Match]) -> StepEffect:
        """Carry out one step on ``pipe.dit``, or on the whole pipeline for offload and compile."""
        with quiet(), torch.no_grad(), declared(), streaming.lifted(pipeline):
            match StepKind(step.kind):
                case StepKind.ATTACH:
                    return self._attach(pipeline, adapters)
                case StepKind.FUSE:
                    return self._fuse(pipeline, adapters)
                case StepKind.QUANTIZE:
                    if step.scheme is None:
                        raise quantization.unsupported(str(step))
                    return quantization.quantize(pipeline, pipeline.dit, step.scheme, self.device)
                case StepKind.OFFLOAD:
                    return self._offload(pipeline, step)
                case StepKind.COMPILE:
                    return self._compile(pipeline)

    def take_base(self, pipeline: BasePipeline, effect: EffectProbe) -> None:
        """Show the probe the Linear layers of ``pipe.dit``."""
        effect.take_base(Layers(pipeline.dit).get_submodule, pipeline.device)

    def effect_gains(self, pipeline: BasePipeline, effect: EffectProbe) -> dict[str, float]:
        """Return the effect gains of the layers of ``pipe.dit``, whatever wraps them by now."""
        return effect.gains(partial(_layer, pipeline), pipeline.device, pipeline.torch_dtype)

    def check(self, pipeline: BasePipeline, request: Request) -> None:
        """Refuse a request that DiffSynth would run as another one, or not at all."""
        check(pipeline, request)

    def generate(self, pipeline: BasePipeline, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run DiffSynth's own ``__call__``, keep the latents that it decodes, and tell of the steps."""
        return generate(pipeline, request, tick)

    def park(self, pipeline: BasePipeline, kept: parking.Parked | None = None) -> parking.Parked:
        """Move what its modules hold on the computing device into host memory; what is offloaded goes back there.

        Raises:
            RuntimeError: host memory is short, or a tensor is of a kind that cannot be moved.
        """
        streamed = streaming.offloaded(pipeline)
        if streamed is not None:
            streamed.release()
        return parking.park(pipeline, pipeline.device, kept)

    def unpark(
        self,
        pipeline: BasePipeline,  # noqa: ARG002 - what is parked knows its tensors
        parked: parking.Parked,
    ) -> None:
        """Move it back to where it was.

        Raises:
            RuntimeError: the device has no room.
        """
        parking.unpark(parked)

    def _attach(self, pipe: BasePipeline, adapters: Sequence[Match]) -> StepEffect:
        from diffsynth.core.vram.layers import LoRAHotLoadMixin  # noqa: PLC0415 - heavy

        pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)
        for adapter in adapters:
            state = {key: t.to(pipe.device, pipe.torch_dtype) for key, t in adapter.state_dict().items()}
            pipe.load_lora(pipe.dit, state_dict=state, alpha=adapter.scale, hotload=True, verbose=0)
        able = [layer for layer in pipe.dit.modules() if isinstance(layer, LoRAHotLoadMixin)]
        return StepEffect(sum(bool(layer.lora_A_weights) for layer in able), len(able))

    def _fuse(self, pipe: BasePipeline, adapters: Sequence[Match]) -> StepEffect:
        from diffsynth.utils.lora import GeneralLoRALoader  # noqa: PLC0415 - heavy

        loader = GeneralLoRALoader(torch_dtype=pipe.torch_dtype, device=pipe.device)
        for adapter in adapters:
            fuse = partial(loader.fuse_lora_to_base_model, alpha=adapter.scale)
            fuse(pipe.dit, fuse_later(pipe.dit, adapter.state_dict(), fuse))
        fused = {name for adapter in adapters for name in adapter.matched}
        return StepEffect(len(fused), len(self.lora_shapes(pipe)))

    def _offload(self, pipe: BasePipeline, step: Step) -> StepEffect:
        card = step.card or self.device.total
        if step.scheme != offloading.DIFFSYNTH:
            return streaming.stream_blocks(pipe, card)
        settle_all(pipe.dit)
        return offloading.offload(pipe, card)

    def _compile(self, pipe: BasePipeline) -> StepEffect:
        # Shapes are taken as they are until they change; DiffSynth's default would make them symbols at once.
        pipe.compile_pipeline(dynamic=None)
        blocks = repeated_blocks(pipe.dit)
        own_code([block for _, block in blocks])
        done = sum(block._compiled_call_impl is not None for _, block in blocks)  # noqa: SLF001 - nn.Module.compile leaves no other trace
        return StepEffect(done, len(blocks))


def _layer(pipe: BasePipeline, name: str) -> torch.nn.Module:
    """Return a layer of ``pipe.dit``, to be called alone: its weights are on the device."""
    layer: torch.nn.Module = pipe.dit.get_submodule(name)
    streamed = streaming.offloaded(pipe)
    if streamed is not None:
        streamed.reach(layer)
    return layer
