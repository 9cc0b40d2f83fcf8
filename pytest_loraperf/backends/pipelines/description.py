"""A pipeline's description, and the synthetic pipeline that is assembled from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffsynth.core.vram.initialization import skip_model_initialization

from pytest_loraperf.backends.latents_only import LatentsOnly
from pytest_loraperf.models import SyntheticSize

Draw = Callable[..., torch.Tensor]
"""``draw(*shape)`` returns random values that the prompt alone decides, in the pipeline's dtype, on its device."""


@dataclass(frozen=True)
class Description:
    """One of DiffSynth's pipelines, whose LoRA goes into ``pipe.dit``.

    ``dit`` builds that module in either size, ``billions`` is the number of its parameters in the full size.
    ``decoder`` is the attribute that decodes: ``tiny_decoder`` builds it for the tiny size, ``latents_only`` what
    stands there in the full size. Prompts become seeded embeddings: ``prompt_unit`` is the class of the unit that
    encodes them, and ``prompt`` returns what it would. A tiny pipeline that encodes its prompts itself has
    ``tiny_text``: what it does so with, by attribute. Modules are built where parameters go to the meta device.
    """

    pipeline: type[Any]
    dit: Callable[[SyntheticSize], torch.nn.Module]
    billions: float
    prompt_unit: type[Any]
    prompt: Callable[[SyntheticSize, Draw], dict[str, Any]]
    tiny_decoder: Callable[[], torch.nn.Module]
    decoder: str = "vae"
    latents_only: Callable[[], torch.nn.Module] = LatentsOnly
    tiny_text: Callable[[], dict[str, Any]] = dict

    def assemble(self, size: SyntheticSize, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """Return the pipeline of this size, its parameters on the meta device and so without values."""
        pipe = self.pipeline(device=device, torch_dtype=dtype)
        tiny = size == "tiny"
        with skip_model_initialization():
            pipe.dit = self.dit(size)
            setattr(pipe, self.decoder, self.tiny_decoder() if tiny else self.latents_only())
            text = self.tiny_text() if tiny else {}
        for name, part in text.items():
            setattr(pipe, name, part)
        if not text:
            self.seed_prompts(pipe, size)
        return pipe

    def seed_prompts(self, pipe: Any, size: SyntheticSize) -> None:
        """Let prompts become seeded embeddings: the same prompt gives the same, without a text encoder."""
        for unit in pipe.units:
            if isinstance(unit, self.prompt_unit):
                unit.process = partial(self._encoded, size)

    def _encoded(self, size: SyntheticSize, pipe: Any, prompt: str, **_: Any) -> dict[str, Any]:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") >> 1
        generator = torch.Generator("cpu").manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(pipe.device, pipe.torch_dtype)

        return self.prompt(size, draw)
