"""What the rest of the application calls."""

from __future__ import annotations

from pathlib import Path

from diffsynth.pipelines.qwen_image import QwenImagePipeline
from ghostly.pipeline import Load, open_base, pretrained, with_lora
from PIL.Image import Image


class Painter:
    """Paints with one LoRA; its pipeline is built once."""

    steps = 4  # the LoRA is distilled for so few

    def __init__(self, lora: Path, load: Load = pretrained, device: str = "cuda") -> None:
        self.lora = lora
        self.load = load
        self.device = device
        self.pipe = self.build()

    def build(self) -> QwenImagePipeline:
        """Return a pipeline with the LoRA."""
        return with_lora(open_base(self.load, self.device), self.lora)

    def paint(self, prompt: str, size: int = 1024) -> Image:
        """Return a square picture of so many pixels a side."""
        return draw(self.pipe, prompt, size, self.steps)


def draw(pipe: QwenImagePipeline, prompt: str, size: int, steps: int) -> Image:
    """Run one generation."""
    picture: Image = pipe(
        prompt,
        height=size,
        width=size,
        num_inference_steps=steps,
        cfg_scale=1,
        seed=0,
        progress_bar_cmd=list,
    )
    return picture
