"""Which layers of a model an adapter fits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pytest_loraperf.errors import AdapterError
from pytest_loraperf.lora.adapter import SHOWN, Adapter, AdapterSource, LoraLayer, Rename, read_adapter, renamed

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Match:
    """An adapter's layers under the model's names; ``unmatched`` are the adapter's that fit nothing.

    ``not_loaded`` are those of ``layers`` that the library's own loading of the file leaves as they are;
    ``refused`` is what that raises.
    """

    adapter: Adapter
    layers: Mapping[str, LoraLayer] = field(repr=False)
    unmatched: tuple[str, ...]
    total: int
    not_loaded: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def matched(self) -> tuple[str, ...]:
        """The model's names of the layers that the adapter changes."""
        return tuple(self.layers)

    @property
    def scale(self) -> float:
        """What the LoRA is multiplied with."""
        return self.adapter.source.scale

    @property
    def left_out(self) -> str | None:
        """Say which layers of the adapter fit nothing, and what of it is no LoRA, or None where all is used."""
        said = []
        if self.unmatched:
            count, few = len(self.adapter.layers), _few(dict.fromkeys(self.unmatched))
            said.append(f"{len(self.unmatched)} of its {count} layers fit none of the model's: {few}")
        if self.adapter.others:
            few = _few(dict.fromkeys(self.adapter.others))
            said.append(f"{len(self.adapter.others)} of its tensors are no LoRA and are not used: {few}")
        return f"{_head(self.adapter)}: {'; '.join(said)}" if said else None

    @property
    def misnamed(self) -> str | None:
        """Say how much of it the library's own loader leaves out, going by the file's names; None for nothing."""
        if self.refused:
            fault = f"raises {self.refused}"
        elif self.not_loaded:
            changed, total = len(self.layers) - len(self.not_loaded), len(self.layers)
            fault = f"changes {changed} of the {total} layers that it is for"
        else:
            return None
        return (
            f"{_head(self.adapter)}: the library's own loader {fault}, by the names in the file "
            f"({self.adapter.convention}); the gates go by the model's names: load what "
            "pytest_loraperf.lora.lora_state_dict returns (README, Adapters)"
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the factors in DiffSynth's form, ``NAME.lora_A.weight`` and ``NAME.lora_B.weight``, unscaled."""
        return {
            f"{name}.lora_{letter}.weight": tensor
            for name, layer in self.layers.items()
            for letter, tensor in (("A", layer.down), ("B", layer.up))
        }


def linear_shapes(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Return (out_features, in_features) of each Linear by name; what a wrapper holds is not counted again."""
    found: dict[str, tuple[int, int]] = {}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear) and name.removesuffix(".module") not in found:
            found[name] = (part.out_features, part.in_features)
    return found


def lora_state_dict(
    path: Path | str,
    module: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device | str,
    rename: Rename | None = None,
) -> dict[str, Tensor]:
    """Read an adapter of any convention into what DiffSynth's loaders take for this module.

    ``rename`` is asked where names fit nothing, such as ``pipe.lora_loader().convert_state_dict`` of a pipeline.

    The factors are named ``NAME.lora_A.weight``, (rank, in_features), and ``NAME.lora_B.weight``, (out_features,
    rank), by the module's own names; rank and alpha are applied.

    Raises:
        AdapterError: the file cannot be read, or fits nothing in the module.
    """
    found = match_adapter(read_adapter(AdapterSource(Path(path))), linear_shapes(module), rename)
    return {key: tensor.to(device, dtype) for key, tensor in found.state_dict().items()}


def match_adapter(adapter: Adapter, layers: Shapes, rename: Rename | None = None) -> Match:
    """Match an adapter to the Linear layers of a model, (out_features, in_features) by name.

    ``rename`` is asked where names fit nothing: who trained a FLUX LoRA, say, may have fused layers that the
    library splits, or the other way round.

    Raises:
        AdapterError: no layer fits, a name fits several, or the shapes are another architecture's.
    """
    used, (found, unmatched) = adapter, _fitting(adapter, layers)
    if unmatched and rename is not None:
        with contextlib.suppress(AdapterError):  # then it is as it was
            again = renamed(adapter, rename)
            fits = _fitting(again, layers)
            if len(fits[1]) < len(unmatched):
                used, (found, unmatched) = again, fits
    if not found:
        raise AdapterError(
            f"{_head(adapter)}: no layer of the model is matched; the adapter has {_few(adapter.layers)}; "
            f"the model has {_few(layers)}"
        )
    _check_shapes(used, found, layers)
    return Match(used, found, tuple(unmatched), len(layers))


def _fitting(adapter: Adapter, layers: Shapes) -> tuple[dict[str, LoraLayer], list[str]]:
    """Return the adapter's layers by the model's names, and the names of those that fit nothing."""
    by_flat = _by_flat_name(layers) if any(layer.flat for layer in adapter.layers.values()) else {}
    found: dict[str, LoraLayer] = {}
    unmatched = []
    for name, layer in adapter.layers.items():
        names = by_flat.get(name, []) if layer.flat else [name] if name in layers else []
        if len(names) > 1:
            raise AdapterError(f"{_head(adapter)}: {name} fits several layers: {', '.join(names)}")
        if names:
            found[names[0]] = layer
        else:
            unmatched.append(name)
    return found, unmatched


def _by_flat_name(layers: Shapes) -> dict[str, list[str]]:
    flat: dict[str, list[str]] = {}
    for name in layers:
        flat.setdefault(name.replace(".", "_"), []).append(name)
    return flat


def _check_shapes(adapter: Adapter, found: Mapping[str, LoraLayer], layers: Shapes) -> None:
    wrong = [
        f"{name} is {layer.shape} in the adapter, {layers[name]} in the model"
        for name, layer in found.items()
        if layer.shape != layers[name]
    ]
    if wrong:
        raise AdapterError(
            f"{_head(adapter)}: made for another architecture, {len(wrong)} of {len(found)} layers differ in "
            f"shape (out, in): {'; '.join(wrong[:SHOWN])}"
        )


def _head(adapter: Adapter) -> str:
    return f"adapter {adapter.source.path}"


def _few(names: Mapping[str, object]) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "none"
