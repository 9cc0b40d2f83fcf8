"""The naming conventions of LoRA files, brought to one form: a layer's name and which part of it a key holds."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Part = Literal["down", "up", "alpha"]

_PARTS: tuple[tuple[str, Part], ...] = (
    (r"\.lora_A(\.[^.]+)?\.weight", "down"),
    (r"\.lora_B(\.[^.]+)?\.weight", "up"),
    (r"\.lora_down\.weight", "down"),
    (r"\.lora_up\.weight", "up"),
    (r"\.lora\.down\.weight", "down"),
    (r"\.lora\.up\.weight", "up"),
    (r"\.alpha", "alpha"),
    (r"\.lora\.alpha", "alpha"),
)
_PREFIXES = (
    ("base_model.model.", "PEFT"),
    ("transformer.", "diffusers"),
    ("diffusion_model.", "ComfyUI"),
    ("lora_unet_", "kohya"),
    ("lora_transformer_", "kohya"),
)
UNSUPPORTED = {
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_blocks": "OFT",
}


@dataclass(frozen=True)
class Key:
    """What one key of a file says. ``flat`` names have underscores where the model has dots (kohya)."""

    layer: str
    part: Part
    convention: str

    @property
    def flat(self) -> bool:
        """Whether the name has to be resolved against the model's."""
        return self.convention == "kohya"


def parse_key(key: str) -> Key | None:
    """Return what a key says, or None where it is no part of a LoRA."""
    for pattern, part in _PARTS:
        found = re.search(pattern + "$", key)
        if found:
            return _with_layer(key[: found.start()], part)
    return None


def _with_layer(name: str, part: Part) -> Key:
    convention = "DiffSynth"
    # PEFT wraps what others have named already: base_model.model.transformer.…
    for prefix, meaning in _PREFIXES:
        if name.startswith(prefix):
            name, convention = name.removeprefix(prefix), meaning
            if meaning == "kohya":
                break
    return Key(name, part, convention)


def written(layer: str, *, flat: bool) -> tuple[str, str]:
    """Return the keys of a layer's factors, down and up, as most files have them: kohya's or diffusers'."""
    if flat:
        return f"lora_unet_{layer}.lora_down.weight", f"lora_unet_{layer}.lora_up.weight"
    return f"transformer.{layer}.lora_A.weight", f"transformer.{layer}.lora_B.weight"


def loaded(keys: Collection[str]) -> set[str]:
    """Return the layers with both factors among keys as they are: ``X.lora_A.weight`` and ``X.lora_B.weight``."""
    endings = (".lora_A.weight", ".lora_B.weight")
    down, up = ({key.removesuffix(ending) for key in keys if key.endswith(ending)} for ending in endings)
    return down & up


def unsupported_kind(key: str) -> str | None:
    """Return the name of the method whose tensors this key holds, where it is not LoRA."""
    return next((kind for word, kind in UNSUPPORTED.items() if word in key.split(".")), None)
