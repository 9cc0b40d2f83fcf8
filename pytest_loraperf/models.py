"""What is built: a synthetic model, a pretrained one, or the user's own build function. No torch here."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pytest_loraperf.errors import ModelError
from pytest_loraperf.registry import PIPELINES, QWEN_IMAGE

ALLOWED = (
    "synthetic:tiny, synthetic:full, synthetic:PIPELINE:SIZE, pretrained:ORG/NAME, pretrained:FOLDER or "
    "package.module:function"
)

FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"

SyntheticSize = Literal["tiny", "full"]
SIZES = get_args(SyntheticSize)
BuildFunction = Callable[..., Any]
"""``build(device="cuda")`` or ``build(device="cpu")`` returns a pipeline whose weights lie there."""


@dataclass(frozen=True)
class Synthetic:
    """The library's own classes with seeded random weights; nothing is downloaded."""

    size: SyntheticSize = "tiny"
    seed: int = 0
    pipeline: str = QWEN_IMAGE

    def __str__(self) -> str:
        if self.pipeline == QWEN_IMAGE:
            return f"synthetic:{self.size}"
        return f"synthetic:{self.pipeline}:{self.size}"


@dataclass(frozen=True)
class Pretrained:
    """Weights by hub id (``Qwen/Qwen-Image``) or from a folder laid out as the hub repository is."""

    source: str

    @property
    def folder(self) -> Path | None:
        """The local folder, or None where the source is a hub id."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() else None

    def __str__(self) -> str:
        return f"pretrained:{self.source}"


@dataclass(frozen=True)
class UserBuilt:
    """A pipeline that the user's own function builds."""

    build: BuildFunction
    name: str

    def __str__(self) -> str:
        return self.name


ModelSpec = Synthetic | Pretrained | UserBuilt


def parse_model(value: object) -> ModelSpec:
    """Turn an option, an ini value or what the fixture ``lora_model`` returned into a model.

    Raises:
        ModelError: the value names no model; the message lists what is allowed.
    """
    if isinstance(value, Synthetic | Pretrained | UserBuilt):
        return value
    if callable(value):
        return UserBuilt(value, getattr(value, "__qualname__", type(value).__name__))
    if not isinstance(value, str):
        raise ModelError(f"model: got {value!r}; allowed are {ALLOWED}, or a build function")
    kind, _, rest = value.partition(":")
    if kind == "synthetic":
        return _synthetic(rest, value)
    if kind == "pretrained":
        return _pretrained(rest, value)
    if names_function(value):
        return UserBuilt(_import_function(value), value)
    raise ModelError(f"model: got {value!r}; allowed are {ALLOWED}")


def names_function(value: str) -> bool:
    """Whether this is the name of a build function, ``module:function``."""
    return value.partition(":")[0] not in {"synthetic", "pretrained"} and bool(re.fullmatch(FUNCTION, value))


def check_model(value: str) -> None:
    """Check the form of a model's name; whether a pretrained one or a function is there is found when it is built.

    Raises:
        ModelError: the value names no model; the message lists what is allowed.
    """
    kind, _, rest = value.partition(":")
    if kind == "synthetic":
        _synthetic(rest, value)
    elif value != "auto" and kind != "pretrained" and not names_function(value):
        raise ModelError(f"got {value!r}; allowed are auto, {ALLOWED}")


def _synthetic(rest: str, value: str) -> Synthetic:
    pipeline, colon, size = rest.rpartition(":")
    pipeline = pipeline if colon else QWEN_IMAGE
    if pipeline in PIPELINES and size in SIZES:
        return Synthetic(size, pipeline=pipeline)  # type: ignore[arg-type]  # mypy does not narrow str by `in`
    raise ModelError(
        f"model: got {value!r}; synthetic models are synthetic:tiny and synthetic:full, or "
        f"synthetic:PIPELINE:SIZE with a pipeline of {', '.join(PIPELINES)}"
    )


def _pretrained(source: str, value: str) -> Pretrained:
    model = Pretrained(source)
    if model.folder is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ModelError(f"model: {value!r} is neither a folder here nor a hub id such as Qwen/Qwen-Image")
    return model


def _import_function(value: str) -> BuildFunction:
    module_name, _, name = value.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        missing = isinstance(error, ModuleNotFoundError) and error.name == module_name
        hint = f"; allowed are {ALLOWED}" if missing else ""
        raise ModelError(f"model: {value!r} cannot be imported: {what}{hint}") from error
    if not callable(function):
        raise ModelError(f"model: {value!r} is {type(function).__name__}, not a function that builds a pipeline")
    return function  # type: ignore[no-any-return]  # callable() narrows getattr's Any no further
