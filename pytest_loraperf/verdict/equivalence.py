"""When two outputs count as the same. Pure: it judges numbers that others measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_loraperf.verdict.types import Status, Verdict

EFFECT_FLOOR = 0.3
"""The least share of the LoRA's effect on the output that an equivalent output must have.

Fused and quantized outputs keep 0.83 to 1.06 of it (20 B-parameter Qwen-Image, H100), the lossy
quantize-then-fuse 0.71; an output without the LoRA keeps 0, and quantization noise moves that by less than 0.1.
"""

DEFAULT_REL_L2: Mapping[str | None, float] = {
    None: 0.02,
    "fp8_storage": 0.08,
    "fp8_compute": 0.08,
    "torchao_fp8_w8a8": 0.08,
}
"""The default limit on the relative L2 distance of latents, by the scheme of the arm (None is bf16).

Each is above what was measured for right results after 4 steps, against the LoRA attached in bf16, by a factor
of two in bf16 and of 1.25 in fp8. On the 20 B-parameter Qwen-Image DiT with random weights at 1024×1024 (H100):
fused bf16 0.0047 and 0.0097 with two ways to draw the weights, fused and compiled bf16 0.0082, fp8 weights 0.034
to 0.038 and 0.064, torchao's dynamic fp8 0.0112 to 0.0116 and 0.061. On the tiny synthetic model: fused bf16
0.004, fp8 weights 0.030, fp8 computation 0.036, torchao's 0.036. For scale, bf16 rounds to 2**-9 relative, fp8
e4m3 to 2**-4. An output is the same each time, so noise does not move it; another model may, and then a test
names its own limit.
"""


@dataclass(frozen=True)
class Distances:
    """The measured distances of an output to its reference, and the share of the LoRA's effect that it has.

    ``image`` has the same distances of the decoded 8-bit images, where there is a VAE.
    """

    rel_l2: float
    max_abs: float
    cosine: float
    psnr: float
    effect_kept: float | None = None
    image: Mapping[str, float] | None = None


NOT_FINITE = "the output holds values that are NaN or infinite: look for an overflow in the weights or the steps"


@dataclass(frozen=True)
class Limits:
    """Upper limits on ``rel_l2`` and ``max_abs``, lower ones on ``cosine`` and the PSNRs (dB); None: unchecked."""

    rel_l2: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    psnr: float | None = None
    image_psnr: float | None = None

    def or_default(self, scheme: str | None) -> Limits:
        """Return these limits, or the default for the scheme where none is set."""
        if self == Limits():
            return Limits(rel_l2=DEFAULT_REL_L2.get(scheme, DEFAULT_REL_L2["fp8_storage"]))
        return self


def judge_outputs(arm: str, reference: str, found: Sequence[Distances], limits: Limits) -> Verdict:
    """Judge one or more outputs, each against its reference: one that fails is told, else the most distant.

    Of several that fail it is one without the LoRA's effect, or the most distant, what is no number first.
    """
    ordered = sorted(found, key=lambda each: (not _lost(each), not math.isnan(each.rel_l2), -each.rel_l2))
    verdicts = [judge_equivalence(arm, reference, each, limits) for each in ordered]
    return next((verdict for verdict in verdicts if not verdict.passed), verdicts[0])


def _lost(found: Distances) -> bool:
    # What is no number says nothing: the reference itself shows no effect.
    return found.effect_kept is not None and found.effect_kept < EFFECT_FLOOR


def judge_equivalence(arm: str, reference: str, found: Distances, limits: Limits) -> Verdict:
    """Judge an output against its reference; one without the LoRA's effect fails whatever the distance."""
    detail = tuple(_detail(found, limits))
    if _lost(found):
        return Verdict(
            Status.FAIL,
            "equivalence",
            f"{arm}: the LoRA had no effect: the output keeps {found.effect_kept:.2f} of the effect that "
            f"{reference} shows (at least {EFFECT_FLOOR} is needed); check that the adapter matches and was fused "
            "before quantizing",
            detail,
        )
    over = [*_over(found, limits)]
    if over:
        advice = "check the order of the steps, or set the limit that this scheme needs"
        if not math.isfinite(found.rel_l2):
            advice = f"{NOT_FINITE}, here or in that of {reference}"
        return Verdict(
            Status.FAIL,
            "equivalence",
            f"{arm}: the output is not equivalent to {reference}: {'; '.join(over)}; {advice}",
            detail,
        )
    held = f"relative L2 {found.rel_l2:.4f}"
    return Verdict(Status.PASS, "equivalence", f"{arm}: equivalent to {reference} ({held})", detail)


def _over(found: Distances, limits: Limits) -> list[str]:
    # `not <=` also catches NaN, which is equivalent to nothing.
    checks = (
        ("relative L2", found.rel_l2, limits.rel_l2, False),
        ("max abs", found.max_abs, limits.max_abs, False),
        ("cosine", found.cosine, limits.cosine, True),
        ("PSNR", found.psnr, limits.psnr, True),
        ("image PSNR", (found.image or {}).get("psnr", math.nan), limits.image_psnr, True),
    )
    lines = []
    for name, value, limit, at_least in checks:
        if limit is None:
            continue
        holds = value >= limit if at_least else value <= limit
        if not holds:
            lines.append(f"{name} {value:.4g}, the limit is {'at least' if at_least else 'at most'} {limit:.4g}")
    return lines


def _detail(found: Distances, limits: Limits) -> list[str]:
    lines = [
        f"relative L2  {found.rel_l2:.5g}" + (f"  (at most {limits.rel_l2:.4g})" if limits.rel_l2 else ""),
        f"max abs      {found.max_abs:.5g}",
        f"cosine       {found.cosine:.6f}",
        f"PSNR         {found.psnr:.2f} dB",
    ]
    if found.image is not None:
        lines.append(f"image PSNR   {found.image['psnr']:.2f} dB")
    if found.effect_kept is not None:
        lines.append(f"LoRA effect  {found.effect_kept:.3f}  (at least {EFFECT_FLOOR})")
    return lines
