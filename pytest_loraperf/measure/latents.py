"""Latents as a small file: what is kept of an output so that a later one can be compared with it.

The file is safetensors with one tensor, ``latents``: the values in the order of memory, in the dtype in which
they were generated. Where all of them are more than ``MOST_BYTES``, every ``stride``-th is kept, beside the norm
of all. The stride shares no factor with the sides of the tensor, so that the values kept come from every row and
column. Nothing else is in the file (the order of metadata would change from run to run): the same latents are the
same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.lora.adapter import LENGTH, is_pickle
from pytest_loraperf.measure.difference import Difference, difference

MOST_BYTES = 256 * 2**10
NAME = "latents"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Kept:
    """What is kept of latents: values, every how many-th they are, and the norm of all (9 digits)."""

    values: Tensor
    stride: int
    norm: float


def keep(latents: Tensor, dtype: str) -> Kept:
    """Return what is kept of latents that were generated in ``dtype``.

    Raises:
        LoraperfError: the dtype is none of a float of 16, 32 or 64 bits.
    """
    kind = _dtype(dtype)
    stride = stride_of(latents.shape, kind.itemsize)
    values = latents.detach().to("cpu").flatten()[::stride].to(kind).contiguous()
    return Kept(values, stride, _norm(latents))


def stride_of(shape: Sequence[int], itemsize: int, most: int = MOST_BYTES) -> int:
    """Return the least stride with which a tensor takes at most so many bytes, and that reaches every row."""
    stride = max(1, math.ceil(math.prod(shape) * itemsize / most))
    while stride > 1 and any(math.gcd(stride, side) > 1 for side in shape):
        stride += 1
    return stride


def to_file(kept: Kept) -> bytes:
    """Return the bytes of the file."""
    return save({NAME: kept.values})


def from_file(data: bytes, dtype: str, shape: Sequence[int], stride: int) -> Tensor:
    """Return the values in a file, of latents of this shape.

    Raises:
        LoraperfError: it is a pickle, damaged, of another dtype or count, or has values that are not finite.
    """
    refuse_pickle(data)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise LoraperfError(f"it is no safetensors file, or truncated ({str(error).splitlines()[0]})") from error
    values = tensors.get(NAME)
    if values is None or len(tensors) > 1:
        raise LoraperfError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not {NAME} alone")
    wanted = (math.ceil(math.prod(shape) / stride),)
    found = str(values.dtype).removeprefix("torch.")
    if found != dtype or values.shape != wanted:
        raise LoraperfError(
            f"it holds {found} of shape {tuple(values.shape)}, and {dtype} of {wanted} is what its record says"
        )
    if wrong := not_finite(values):
        raise LoraperfError(f"{wrong} of its {values.numel()} values are not finite")
    return values


def refuse_pickle(data: bytes) -> None:
    """Refuse a pickle by the way it begins.

    Raises:
        LoraperfError: it is one.
    """
    if is_pickle(data[: LENGTH + 1]):
        raise LoraperfError("it is a pickle, which can run code when loaded, and is not opened")


def not_finite(latents: Tensor) -> int:
    """Return how many values are infinite or no numbers."""
    return int((~latents.isfinite()).sum())


def distance(latents: Tensor, values: Tensor, stride: int, norm: float) -> Difference:
    """Compare latents with what was kept of others of the same shape.

    Where not all values were kept, the relative L2 distance of those is that of all but for chance. The norms of
    all differ by at most the distance of all, so it is no less than their difference.
    """
    found = difference(latents.flatten()[::stride], values)
    apart = abs(_norm(latents) - norm)
    least = apart / norm if norm > 0 else 0.0
    if least <= max(found.rel_l2, 1e-8):  # the norm that was kept is rounded
        return found
    return Difference(least, found.max_abs, found.cosine, found.psnr)


def _norm(latents: Tensor) -> float:
    return float(f"{float(latents.detach().to('cpu', torch.float64).norm()):.9g}")


def _dtype(name: str) -> torch.dtype:
    try:
        return DTYPES[name]
    except KeyError:
        raise LoraperfError(
            f"latents of {name} cannot be kept; let the pipeline compute in one of {', '.join(DTYPES)}"
        ) from None
