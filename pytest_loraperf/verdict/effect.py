"""Whether a LoRA is in the weights, by the effect gain of its layers, which others measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Final

from pytest_loraperf.verdict.types import Status, Verdict

MIN_GAIN = 0.9
"""The least effect gain of a layer unless a test says otherwise.

Right orders keep 0.98 and more of it, also of a weak adapter; fused into unscaled fp8 an adapter of 1.5 % of its
weights keeps 0.06, one of 5 % 0.92 in the median and less in the worst layer.
"""

MAX_MEDIAN = 1.5
"""The most effect gain of the median layer: halfway between a LoRA that is there once, and one twice there."""

SHOWN = 10
CODE: Final = "lora-effect"


def no_lora(arm: str) -> Verdict:
    """Fail a strategy that is held to a LoRA's effect, and has no step that puts one in."""
    message = f"{arm}: none of its steps puts a LoRA in, so it has no effect of one; add attach or fuse, or leave "
    return Verdict(Status.FAIL, CODE, f"{message}lora_effect out")


def judge_effect(arm: str, gains: Mapping[str, float], min_gain: float) -> Verdict:
    """Judge the effect gain of each layer: at least ``min_gain`` in the lowest, that of one LoRA in the median."""
    if not gains:
        message = f"{arm}: the adapter's matrices or its scale are zero, so it intends no effect; check both"
        return Verdict(Status.FAIL, CODE, message)
    detail = worst_layers(gains)
    layer, lowest = _ordered(gains)[0]
    middle = median(gains.values())
    head = f"{arm}: {lowest:.3f} of the LoRA's intended effect is in {layer}, the lowest of {len(gains)} layers"
    if middle > MAX_MEDIAN:
        message = (
            f"{arm}: {middle:.3f} of the LoRA's intended effect is in the median of {len(gains)} layers, at most "
            f"{MAX_MEDIAN} is allowed: it is attached or fused more than once, or the pipeline was built with it"
        )
        return Verdict(Status.FAIL, CODE, message, detail)
    if lowest >= min_gain:
        return Verdict(
            Status.PASS, CODE, f"{head} (median {middle:.3f}), at least {min_gain:.4g} is needed", detail
        )
    few = sum(not gain >= min_gain for gain in gains.values())
    return Verdict(
        Status.FAIL,
        CODE,
        f"{head} (median {middle:.3f}), but at least {min_gain:.4g} is needed, and {few} have less; fuse before "
        "quantizing, and check that nothing replaced the layers that hold the LoRA",
        detail,
    )


def worst_layers(gains: Mapping[str, float]) -> tuple[str, ...]:
    """Return a line for each of the layers with the lowest gains, what is no number first."""
    return tuple(f"{gain:8.3f}  {name}" for name, gain in _ordered(gains)[:SHOWN])


def _ordered(gains: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(gains.items(), key=lambda pair: (not math.isnan(pair[1]), pair[1]))
