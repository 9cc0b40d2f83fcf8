"""Adapter files: any LoRA in safetensors, read to one canonical form or refused in one clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from pytest_loraperf.errors import AdapterError, said
from pytest_loraperf.lora.keys import Key, parse_key, unsupported_kind, written

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
SHOWN = 3
"""Names shown of a longer list."""
LENGTH = 8
"""Bytes of the header's length, little-endian, that a safetensors file begins with."""
MAX_HEADER = 100_000_000
"""Bytes of the longest header that safetensors reads."""

Rename = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""A library's own conversion of a LoRA file's tensors to the names of its model's layers."""


@dataclass(frozen=True)
class AdapterSource:
    """An adapter file and the scale that its LoRA is applied with."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class LoraLayer:
    """One layer's factors: ΔW = ``up`` @ ``down``.

    ``down`` is (rank, in_features), ``up`` (out_features, rank), both in the file's dtype; alpha / rank is applied
    already, to ``down``, in float32 unless the factor is a power of two and so exact. ``alpha`` is the file's.
    """

    name: str
    down: Tensor
    up: Tensor
    alpha: float | None = None
    flat: bool = False

    @property
    def rank(self) -> int:
        """The rank of ΔW."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        return (self.up.shape[0], self.down.shape[1])


@dataclass(frozen=True)
class Adapter:
    """A file, read: its layers by the names that the file gives them, without prefixes.

    ``others`` are the keys of tensors that are no part of a LoRA, such as a bias's difference; ``tensors`` is all
    that the file holds, by its own keys.
    """

    source: AdapterSource
    convention: str
    layers: Mapping[str, LoraLayer] = field(repr=False)
    others: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def parse_source(text: str) -> AdapterSource:
    """Read ``a.safetensors`` or ``a.safetensors:0.8``, a scale after the last colon.

    Raises:
        AdapterError: the path is empty, or what follows the suffix is no finite number.
    """
    path, colon, scale = text.rpartition(":")
    if not colon or not path.endswith((".safetensors", *PICKLE_SUFFIXES)):
        if not text.strip():
            raise AdapterError("adapter '': write a file, such as a.safetensors or a.safetensors:0.8")
        return AdapterSource(Path(text).expanduser())
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AdapterError(f"adapter {text!r}: the scale {scale!r} is no number; write {path}:0.8")
    return AdapterSource(Path(path).expanduser(), value)


def read_adapter(source: AdapterSource) -> Adapter:
    """Read a LoRA file in DiffSynth's, PEFT's, diffusers', kohya's or ComfyUI's convention.

    Raises:
        AdapterError: the file is missing, no safetensors, no LoRA, or damaged; one line says what to do.
    """
    tensors, metadata = _load(source.path)
    strange = next((kind for key in tensors if (kind := unsupported_kind(key))), None)
    if strange:
        raise AdapterError(f"adapter {source.path}: it is a {strange} file; only LoRA (down and up) is supported")
    keys = {name: key for name in tensors if (key := parse_key(name)) is not None}
    if not keys:
        shown = ", ".join(list(tensors)[:SHOWN]) or "none"
        raise AdapterError(f"adapter {source.path}: no LoRA keys; it has {shown}; X.lora_A.weight is expected")
    layers = _layers(source.path, tensors, keys, _PeftAlpha.read(source.path, metadata))
    _refuse_not_finite(source.path, layers)
    conventions = sorted({key.convention for key in keys.values()})
    return Adapter(
        source, "+".join(conventions), layers, tuple(name for name in tensors if name not in keys), tensors
    )


def renamed(adapter: Adapter, rename: Rename) -> Adapter:
    """Return an adapter with its layers as a library's conversion has them, which may fuse or split them.

    Raises:
        AdapterError: the conversion does not know these layers.
    """
    found: dict[str, Tensor] = {}
    for flat in (True, False):  # conversions guess from one key what all the others are
        tensors = {
            key: factor
            for layer in adapter.layers.values()
            if layer.flat is flat
            for key, factor in zip(written(layer.name, flat=flat), (layer.down, layer.up), strict=True)
        }
        try:
            with unset_fake_temporarily():  # in a forecast, these have values all the same
                found |= rename(tensors) if tensors else {}
        except Exception as error:
            raise AdapterError(f"adapter {adapter.source.path}: {said(error)}") from error
    keys = {name: key for name in found if (key := parse_key(name)) is not None}
    return replace(adapter, layers=_layers(adapter.source.path, found, keys, _PeftAlpha()))


def _layers(
    path: Path, tensors: Mapping[str, Tensor], keys: Mapping[str, Key], peft: _PeftAlpha
) -> dict[str, LoraLayer]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, key in keys.items():
        parts.setdefault(key.layer, {})[key.part] = tensors[name]
    by_layer = {key.layer: key for key in keys.values()}
    return {name: _layer(path, by_layer[name], found, peft) for name, found in parts.items()}


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix in PICKLE_SUFFIXES:
        raise AdapterError(
            f"adapter {path}: {path.suffix} files are pickles, which can run code when loaded; "
            "convert it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'a.safetensors')"
        )
    if path.is_dir():
        raise AdapterError(f"adapter {path}: it is a folder; name the .safetensors file inside")
    try:
        with path.open("rb") as file:
            start = file.read(LENGTH + 1)
    except OSError as error:
        raise AdapterError(f"adapter {path}: cannot be read: {error.strerror}; check the path") from error
    if not start:
        raise AdapterError(f"adapter {path}: the file is empty; download or save it again")
    if is_pickle(start):
        raise AdapterError(f"adapter {path}: it holds a pickle, not safetensors; save it with safetensors.torch")
    try:
        with safe_open(path, framework="pt") as opened:
            # Views of the mapped file: nothing is copied until it is used.
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118 - it is no dict
    except (SafetensorError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(
            f"adapter {path}: damaged or truncated ({reason}); download or save it again"
        ) from error


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins so is a pickle, plain or in torch's zip.

    The length of a safetensors header may begin with the same bytes: 640 is ``80 02``, 19280 is ``PK``. Its ``{``
    tells it then; a pickle whose first eight bytes were so small a number has a zero there.
    """
    if start[LENGTH:] == b"{" and int.from_bytes(start[:LENGTH], "little") <= MAX_HEADER:
        return False
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"))


@dataclass(frozen=True)
class _PeftAlpha:
    """The alphas of PEFT's configuration: diffusers keeps it in the file's metadata, PEFT beside the file."""

    alpha: float | None = None
    by_layer: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, metadata: Mapping[str, str]) -> _PeftAlpha:
        beside = path.with_name("adapter_config.json")
        text = metadata.get("lora_adapter_metadata", "{}")
        try:
            if text == "{}" and path.name == "adapter_model.safetensors" and beside.is_file():
                text = beside.read_text(encoding="utf-8")
            found: Any = json.loads(text)
        except (ValueError, OSError):
            return cls()
        if not isinstance(found, dict):
            return cls()
        if found.get("use_rslora"):
            raise AdapterError(f"adapter {path}: it is rank-stabilized (use_rslora), which is not supported")
        plain = {str(key).removeprefix("transformer."): value for key, value in found.items()}
        alpha, pattern = plain.get("lora_alpha"), plain.get("alpha_pattern")
        return cls(
            float(alpha) if isinstance(alpha, int | float) else None,
            {str(k): float(v) for k, v in pattern.items()} if isinstance(pattern, dict) else {},
        )

    def of(self, layer: str) -> float | None:
        for pattern, alpha in self.by_layer.items():
            if layer == pattern or layer.endswith(f".{pattern}"):
                return alpha
        return self.alpha


def _layer(path: Path, key: Key, parts: Mapping[str, Tensor], peft: _PeftAlpha) -> LoraLayer:
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise AdapterError(f"adapter {path}: layer {key.layer} has no {missing[0]} weight; the file is incomplete")
    down, up = (_matrix(path, key.layer, parts[part]) for part in ("down", "up"))
    rank = down.shape[0]
    if up.shape[1] != rank or rank == 0:
        raise AdapterError(
            f"adapter {path}: layer {key.layer}: down is {tuple(down.shape)} but up is {tuple(up.shape)}; "
            "their ranks differ, the file is damaged"
        )
    alpha = float(parts["alpha"]) if "alpha" in parts and parts["alpha"].numel() == 1 else peft.of(key.layer)
    if alpha is not None and not math.isfinite(alpha):
        raise AdapterError(f"adapter {path}: layer {key.layer}: alpha is {alpha}; the file is damaged")
    return LoraLayer(key.layer, _scaled(down, 1.0 if alpha is None else alpha / rank), up, alpha, key.flat)


def _matrix(path: Path, layer: str, tensor: Tensor) -> Tensor:
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):  # noqa: PLR2004 - a 1x1 convolution is a product
        tensor = tensor[:, :, 0, 0]
    if tensor.dim() != 2 or not tensor.is_floating_point():  # noqa: PLR2004 - a matrix
        raise AdapterError(
            f"adapter {path}: layer {layer} has a {tuple(tensor.shape)} {tensor.dtype} weight; "
            "floating-point matrices are expected"
        )
    return tensor


def _scaled(down: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return down
    exact = factor != 0 and math.frexp(abs(factor))[0] == 0.5  # noqa: PLR2004 - a power of two
    return down * factor if exact else down.to(torch.float32) * factor


def _refuse_not_finite(path: Path, layers: Mapping[str, LoraLayer]) -> None:
    bad = [n for n, layer in layers.items() if not (_finite(layer.down) and _finite(layer.up))]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise AdapterError(
            f"adapter {path}: NaN or infinite values in {', '.join(bad[:SHOWN])}{more}; train or save it again"
        )


def _finite(tensor: Tensor) -> bool:
    # A sum is finite unless a value is not, or it overflows: one pass, and no mask of the tensor's size.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))
