"""A pipeline's description, and the synthetic pipeline that is built from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization

from pytest_loraperf.backends.synthetic import LatentsOnly
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import Synthetic, SyntheticSize

Draw = Callable[..., torch.Tensor]
"""``draw(*shape)`` returns random values that the prompt alone decides, in the pipeline's dtype, on its device."""


@dataclass(frozen=True)
class Description:
    """One of DiffSynth's pipelines, whose LoRA goes into ``pipe.dit``.

    ``dit`` builds that module in either size; it is called where parameters go to the meta device. Prompts become
    seeded embeddings: ``prompt_unit`` is the class of the unit that encodes them, and ``prompt`` returns what it
    would. ``decoder`` is the attribute that decodes, filled with ``latents_only``. ``billions`` is the number of
    parameters of the full size.
    """

    pipeline: type[Any]
    dit: Callable[[SyntheticSize], torch.nn.Module]
    billions: float
    prompt_unit: type[Any]
    prompt: Callable[[SyntheticSize, Draw], dict[str, Any]]
    decoder: str = "vae"
    latents_only: Callable[[], torch.nn.Module] = LatentsOnly

    def assemble(self, size: SyntheticSize, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """Return the pipeline of this size, its parameters on the meta device and so without values."""
        pipe = self.pipeline(device=device, torch_dtype=dtype)
        with skip_model_initialization():
            pipe.dit = self.dit(size)
        setattr(pipe, self.decoder, self.latents_only())
        for unit in pipe.units:
            if isinstance(unit, self.prompt_unit):
                unit.process = partial(self._encoded, size)
        return pipe

    def build(
        self, model: Synthetic, *, device: torch.device | str, weights_on: torch.device | str, dtype: torch.dtype
    ) -> Any:
        """Build a pipeline that computes on ``device``, its weights kept on ``weights_on``.

        Raises:
            ModelError: the full model was asked for on the CPU.
        """
        if model.size == "full" and torch.device(device).type == "cpu":
            raise ModelError(
                f"{model} has {self.billions:g} B parameters and needs a CUDA device; "
                f"use synthetic:{model.pipeline}:tiny"
            )
        pipe = self.assemble(model.size, device=device, dtype=dtype)
        kinds = pipe.dit._repeated_blocks  # noqa: SLF001 - DiffSynth's own list of what it compiles one by one
        blocks = [part for part in pipe.dit.modules() if type(part).__name__ in kinds]
        generator = torch.Generator(device).manual_seed(model.seed)
        fill(pipe.dit, generator, weights_on=weights_on, dtype=dtype, blocks=blocks)
        return pipe.eval()

    def _encoded(self, size: SyntheticSize, pipe: Any, prompt: str, **_: Any) -> dict[str, Any]:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") >> 1
        generator = torch.Generator("cpu").manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(pipe.device, pipe.torch_dtype)

        return self.prompt(size, draw)
