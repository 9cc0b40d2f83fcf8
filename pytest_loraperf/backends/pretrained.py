"""Pretrained Qwen-Image pipelines, by the ``ModelConfig`` of DiffSynth 1.1 or 2.x: from a hub or from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffsynth.pipelines.qwen_image import ModelConfig, QwenImagePipeline

from pytest_loraperf.errors import ModelError

TRANSFORMER = "transformer/diffusion_pytorch_model*.safetensors"
TEXT_ENCODER = "text_encoder/model*.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TOKENIZER = "tokenizer/"
PROCESSOR = "processor/"
BASE = "Qwen/Qwen-Image"
EDIT_BASE = "Qwen/Qwen-Image-Edit"
"""Where DiffSynth's examples take text encoder, tokenizer and VAE from, and the processor for edit models."""
LONGEST_REASON = 200
"""Characters of another library's message that are shown."""


@dataclass(frozen=True)
class Parts:
    """What a pipeline is loaded from; ``processor`` makes it an edit pipeline."""

    transformer: ModelConfig
    text_encoder: ModelConfig
    vae: ModelConfig
    tokenizer: ModelConfig
    processor: ModelConfig | None

    @property
    def models(self) -> list[ModelConfig]:
        """The parts that have weights."""
        return [self.transformer, self.text_encoder, self.vae]

    @property
    def all(self) -> list[ModelConfig]:
        """Every part that there is."""
        return [*self.models, self.tokenizer, *([self.processor] if self.processor else [])]


def build_pretrained(
    source: str,
    *,
    device: torch.device | str,
    weights_on: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
) -> QwenImagePipeline:
    """Load a Qwen-Image or Qwen-Image-Edit pipeline that computes on ``device``, its weights on ``weights_on``.

    ``source`` is a hub id such as ``Qwen/Qwen-Image-Edit``, or a folder laid out as that repository is. A
    ``processor/`` folder, or ``Edit`` in the id, makes it an edit pipeline.

    Raises:
        ModelError: a part is missing or belongs to another model, or loading failed; the message says which part,
            or why.
    """
    folder = Path(source).expanduser()
    parts = _local(folder) if folder.is_dir() else _remote(source)
    try:
        for part in parts.all:
            _find(part, source)
        for part in parts.models:
            # 2.x loads to where it computes; 1.1, which has no such field, to where it offloads to.
            place = "computation_device" if hasattr(part, "computation_device") else "offload_device"
            setattr(part, place, weights_on)
        pipe = QwenImagePipeline.from_pretrained(
            torch_dtype=dtype,
            device=device,
            model_configs=parts.models,
            tokenizer_config=parts.tokenizer,
            processor_config=parts.processor,
        )
    except ModelError:
        raise
    except Exception as error:
        # Whatever the hub's client or the file reader raises, the user needs the one line that says why.
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise ModelError(f"model {source!r} cannot be loaded: {type(error).__name__}: {reason}") from error
    _check_complete(pipe, source)
    return pipe


def _remote(source: str) -> Parts:
    def files(model: str, pattern: str) -> ModelConfig:
        return ModelConfig(model_id=model, origin_file_pattern=pattern)

    edit = "edit" in source.lower()
    return Parts(
        transformer=files(source, TRANSFORMER),
        text_encoder=files(BASE, TEXT_ENCODER),
        vae=files(BASE, VAE),
        tokenizer=files(BASE, TOKENIZER),
        processor=files(EDIT_BASE, PROCESSOR) if edit else None,
    )


def _local(folder: Path) -> Parts:
    def files(pattern: str) -> ModelConfig:
        found = sorted(str(path) for path in folder.glob(pattern))
        if not found:
            raise ModelError(f"model folder {folder}: {pattern} is missing; lay it out as {BASE} is on the hub")
        return ModelConfig(path=found)

    return Parts(
        transformer=files(TRANSFORMER),
        text_encoder=files(TEXT_ENCODER),
        vae=files(VAE),
        tokenizer=files(TOKENIZER),
        processor=files(PROCESSOR) if (folder / PROCESSOR).is_dir() else None,
    )


def _find(part: ModelConfig, source: str) -> None:
    """Download a part that is not here yet, and see that it is here: DiffSynth goes on without."""
    part.download_if_necessary()
    if not part.path:
        place = Path(part.local_model_path) / part.model_id
        raise ModelError(
            f"model {source!r}: {part.model_id} gave no {part.origin_file_pattern} in {place}; "
            "name a Qwen-Image repository, and allow downloads (DIFFSYNTH_SKIP_DOWNLOAD)"
        )


def _check_complete(pipe: QwenImagePipeline, source: str) -> None:
    """Files of another model that DiffSynth knows load without an error, but leave their place empty."""
    places = {"dit": TRANSFORMER, "text_encoder": TEXT_ENCODER, "vae": VAE}
    for name, pattern in places.items():
        if getattr(pipe, name) is None:
            raise ModelError(f"model {source!r}: {pattern} is of another model; a Qwen-Image model is needed")
