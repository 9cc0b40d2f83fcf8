"""One generation request, as data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from types import UnionType
from typing import Any

from pytest_loraperf.errors import LoraperfError

KINDS: tuple[tuple[str, type | UnionType, str], ...] = (
    ("prompt", str, "a text"),
    ("negative_prompt", str, "a text"),
    ("cfg", int | float, "a number"),
    ("seed", int | None, "a whole number"),  # None is left to DiffSynth, which draws one
    ("edit_image", str | PathLike | None, "the path of an image"),
    ("extra", Mapping, "a mapping of arguments of the pipeline"),
)
MIN_STEPS = 2
"""Qwen-Image's scheduler gives NaN for one step, in DiffSynth and in diffusers."""

SEEDS = range(-(2**63), 2**64)
"""What ``torch.Generator.manual_seed`` takes."""


@dataclass(frozen=True)
class Request:
    """The arguments of one generation.

    ``height`` and ``width`` are pixels, ``steps`` denoising steps, ``cfg`` the classifier-free guidance
    scale (1 switches it off). ``edit_image`` is the path of an image to edit, or None. ``extra`` goes to the
    pipeline as it is, such as ``{"zero_cond_t": True}``.
    """

    prompt: str = "a ghost made of mist in an old library"
    height: int = 1024
    width: int = 1024
    steps: int = 4
    cfg: float = 1.0
    seed: int = 0
    negative_prompt: str = ""
    edit_image: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("height", "width", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LoraperfError(f"request: {name}={value!r}; a positive whole number is allowed")
        for name, kind, allowed in KINDS:
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise LoraperfError(f"request: {name}={value!r}; {allowed} is allowed")
        if not math.isfinite(self.cfg):
            raise LoraperfError(f"request: cfg={self.cfg!r}; a finite number is allowed, 1 switches guidance off")
        seed: int | None = self.seed
        if seed is not None and seed not in SEEDS:
            raise LoraperfError(f"request: seed={seed}; torch takes {SEEDS.start} to {SEEDS.stop - 1}")

    def with_changes(self, **changes: Any) -> Request:
        """Return this request with some fields changed.

        Raises:
            LoraperfError: a name is no field of a request; the message lists the fields.
        """
        unknown = sorted(set(changes) - set(self.__dataclass_fields__))
        if unknown:
            fields = ", ".join(self.__dataclass_fields__)
            raise LoraperfError(f"request: no field {', '.join(unknown)}; the fields are {fields}")
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; what JSON does not know stands as its repr."""
        plain: dict[str, Any] = json.loads(self.key)
        return plain

    @property
    def key(self) -> str:
        """A text that equal requests share."""
        return json.dumps(asdict(self), sort_keys=True, default=repr)


TINY_REQUEST = Request(height=64, width=64)
FULL_REQUEST = Request()
