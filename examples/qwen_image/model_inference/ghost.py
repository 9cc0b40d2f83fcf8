"""What the four scripts beside it share: their options, where the model's files are, and a model without any."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from diffsynth.pipelines.qwen_image import ModelConfig, QwenImagePipeline
from PIL import Image

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.units import parse_size


def options(description: str | None, vram: str | None = None) -> argparse.Namespace:
    """Read the command line; ``vram`` is the size of the card that a script is for, where it may be changed."""
    sys.excepthook = _one_line
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model", default="Qwen/Qwen-Image-Edit", help="id on the hub, or a folder laid out as it is there"
    )
    parser.add_argument("--lora", help="a .safetensors file")
    parser.add_argument("--alpha", type=float, default=1.0, help="what the LoRA is multiplied with")
    parser.add_argument("--image", help="the image to edit")
    parser.add_argument("--prompt", default="turn the person into a ghost made of mist")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cfg", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", default="ghost.png")
    parser.add_argument(
        "--synthetic",
        nargs="?",
        const="tiny",
        choices=("tiny", "full"),
        help="random weights and a random LoRA, no download",
    )
    if vram is not None:
        parser.add_argument("--vram", default=vram, help=f"size of the card (default: {vram})")
    given = parser.parse_args()
    if not given.synthetic and not (given.lora and given.image):
        parser.error("name a LoRA with --lora and an image with --image, or try it with --synthetic")
    side = 64 if given.synthetic == "tiny" else 1024
    given.height, given.width = given.height or side, given.width or side
    given.steps = given.steps or (4 if given.synthetic else 40)
    given.cfg = given.cfg or (1.0 if given.synthetic else 4.0)
    if vram is not None:
        given.vram = parse_size(given.vram)
    given.image = _opened(given.image) if given.image else None
    return given


def files(model: str, pattern: str, hub: str | None = None, **more: Any) -> ModelConfig:
    """Return files of a model, from its folder here or from the hub; ``hub`` is where the hub has them."""
    folder = Path(model)
    if not folder.is_dir():
        return ModelConfig(model_id=hub or model, origin_file_pattern=pattern, **more)
    found = sorted(str(path) for path in folder.glob(pattern))
    if not found:
        raise LoraperfError(
            f"model folder {folder}: {pattern} is missing; lay it out as {hub or model} is on the hub"
        )
    return ModelConfig(path=found[0] if len(found) == 1 else found, **more)


def synthetic(given: argparse.Namespace, weights_on: str) -> QwenImagePipeline:
    """Return a pipeline of DiffSynth's own classes with random weights, and name a random LoRA for it."""
    from pytest_loraperf.backends.blocks import inside, repeated_blocks  # noqa: PLC0415 - only for --synthetic
    from pytest_loraperf.backends.synthetic import build_synthetic  # noqa: PLC0415 - the same

    pipe = build_synthetic(given.synthetic, seed=0, device=given.device, weights_on=weights_on)
    if given.synthetic == "full":  # its DiT is of full size, and its VAE the tiny one, so that there is an image
        pipe.vae = build_synthetic("tiny", seed=0, device=given.device, weights_on=weights_on).vae
    if given.lora is None:
        layers = inside(linear_shapes(pipe.dit), repeated_blocks(pipe.dit))
        path = Path(given.output).with_name(f"{Path(given.output).stem}-synthetic.safetensors")
        norms = weight_norms(pipe.dit, layers, given.device)
        given.lora = write_synthetic_adapter(path, norms, device=given.device)
    return pipe


def save(image: Image.Image, given: argparse.Namespace) -> None:
    """Save the image, and say what it took."""
    image.save(given.output)
    peak = f", {torch.cuda.max_memory_reserved() / 2**30:.2f} GB of VRAM" if given.device != "cpu" else ""
    print(f"saved {given.output}: {image.width}×{image.height}{peak}")


def _opened(path: str) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise LoraperfError(f"--image {path}: cannot be read: {error}; name a picture") from error


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show what can be mended by another option without a traceback."""
    if issubclass(kind, LoraperfError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
