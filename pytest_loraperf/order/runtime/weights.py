"""What can be seen of a model: which layers are quantized, which have an adapter. Nothing is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pytest_loraperf.order.entry_points import COMPONENTS, DTYPES, is_float8

QUANTIZERS = ("bitsandbytes.nn", "optimum.quanto", "torchao")


def is_model(value: object) -> bool:
    """Whether it is an ``nn.Module``; torch is there, or there are none."""
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    return nn is not None and isinstance(value, nn.Module)


def components(pipeline: Any, names: tuple[str, ...] = COMPONENTS) -> list[Any]:
    """Return the models of a pipeline by these names; a model without any is meant itself."""
    found = [getattr(pipeline, name, None) for name in names]
    models = [model for model in found if model is not None and is_model(model)]
    return models or ([pipeline] if is_model(pipeline) else [])


def the_model(value: Any) -> Any | None:
    """Return the model that is meant: that of a bound method, and what compile or peft put a shell around."""
    value = value if is_model(value) else getattr(value, "__self__", None)
    while is_model(value):
        inner = value._modules.get("_orig_mod") or _in_peft(value)  # noqa: SLF001 - hasattr is slow on a Module
        if inner is None:
            return value
        value = inner
    return None


def _in_peft(shell: Any) -> Any | None:
    if type(shell).__module__.partition(".")[0] != "peft":
        return None
    parts = shell._modules  # noqa: SLF001 - the same
    return parts.get("base_model") or parts.get("model")


def is_quantized(layer: Any) -> bool:
    """Whether a layer's weights are quantized: by a library, as float8, or managed to become float8."""
    weight = layer._parameters.get("weight")  # noqa: SLF001 - the same
    if type(layer).__module__.startswith(QUANTIZERS) or type(weight).__module__.startswith(QUANTIZERS):
        return True
    return is_float8(getattr(weight, "dtype", None)) or any(is_float8(vars(layer).get(key)) for key in DTYPES)


def has_quantized(model: Any) -> bool:
    """Whether any layer of a model is quantized."""
    if getattr(model, "hf_quantizer", None) is not None:
        return True
    return any(is_quantized(layer) for layer in model.modules())


def count_quantized(
    model: Any, is_done: Callable[[Any], bool] | None = None
) -> tuple[int, int] | tuple[None, None]:
    """Return how many layers are quantized, of how many Linear layers; nothing where there are none."""
    linear = sys.modules["torch"].nn.Linear
    layers = list(model.modules())
    done = sum(1 for layer in layers if is_quantized(layer) or (is_done is not None and is_done(layer)))
    total = max(done, sum(isinstance(layer, linear) for layer in layers))
    return (done, total) if total else (None, None)


def count_adapters(model: Any) -> int:
    """Return how many adapters are attached to layers: DiffSynth's lists, and peft's dicts."""
    lists = (vars(layer).get("lora_A_weights") or layer._modules.get("lora_A") or () for layer in model.modules())  # noqa: SLF001 - the same
    return sum(len(each) if hasattr(each, "__len__") else 1 for each in lists)


def count_named(model: Any, names: frozenset[str]) -> int:
    """Return how many of these layers a model has."""
    return sum(name in names for name, _ in model.named_modules())
