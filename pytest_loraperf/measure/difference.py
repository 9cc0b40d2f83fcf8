"""How far two outputs are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Distances of an output to a reference, all on float32.

    ``rel_l2`` is ‖x - r‖ / ‖r‖; ``max_abs`` is max |x - r|, in the unit of the values; ``cosine`` is
    ⟨x, r⟩ / (‖x‖ ‖r‖); ``psnr`` is 20 log10(range / RMSE) in dB, the range being max r - min r for latents
    and 255 for images, infinite where nothing differs, minus
    infinity where a value is infinite.
    """

    rel_l2: float
    max_abs: float
    cosine: float
    psnr: float


def difference(output: Tensor, reference: Tensor, *, value_range: float | None = None) -> Difference:
    """Compare two tensors of one shape, any dtype; the sums are taken in float64.

    Raises:
        ValueError: the shapes differ.
    """
    if output.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(output.shape)} and {tuple(reference.shape)}")
    x, r = _flat(output), _flat(reference)
    error = x - r
    span = float(r.max() - r.min()) if value_range is None else value_range
    return Difference(
        rel_l2=_ratio(float(error.norm()), float(r.norm())),
        max_abs=float(error.abs().max()),
        cosine=_ratio(float(x @ r), float(x.norm() * r.norm()), empty=1.0),
        psnr=_psnr(span, float(error.square().mean().sqrt())),
    )


def image_difference(image: Any, reference: Any) -> Difference:
    """Compare two PIL images of one size, or two videos as lists of such frames, by their 8-bit RGB values.

    Raises:
        ValueError: the sizes or the numbers of frames differ.
    """
    return difference(_pixels(image), _pixels(reference), value_range=255.0)


def effect_kept(output: Tensor, reference: Tensor, control: Tensor) -> float:
    """Return ⟨x - c, r - c⟩ / ⟨r - c, r - c⟩: how much of the reference's LoRA effect the output has.

    1 where the output has the effect, 0 where it is the output without the LoRA (``control``); NaN where the
    reference itself does not differ from the control.
    """
    x, r, c = _flat(output), _flat(reference), _flat(control)
    intended = r - c
    power = float(intended @ intended)
    return float((x - c) @ intended) / power if power > 0 else math.nan


def _pixels(image: Any) -> Tensor:
    frames = image if isinstance(image, list) else [image]
    return torch.from_numpy(np.stack([np.array(frame.convert("RGB")) for frame in frames]))


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64).flatten()


def _ratio(part: float, whole: float, empty: float = 0.0) -> float:
    if whole > 0:
        return part / whole
    return empty if part == 0 else math.inf


def _psnr(span: float, rmse: float) -> float:
    if rmse == 0:
        return math.inf
    return 20 * math.log10(span / rmse) if span > 0 and rmse < math.inf else -math.inf
