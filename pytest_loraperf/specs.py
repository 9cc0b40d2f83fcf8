"""What the markers are called with, as frozen specs, checked before any test runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.units import parse_duration, parse_percent, parse_ratio, parse_size

Phase = Literal["setup", "resident", "runtime"]
PHASES: tuple[Phase, ...] = ("setup", "resident", "runtime")


NOTHING_STAYS = (
    "phase='resident' is of a pipeline that stays built, and the test uses none; "
    "use its fixture, or hold the phase setup or runtime"
)


class MarkerError(LoraperfError):
    """A marker's arguments are not what it takes."""


@dataclass(frozen=True)
class LatencyBudget:
    """At most ``limit`` seconds; or, where ``of`` is given, at most ``limit`` times as long as that."""

    limit: float
    of: str | None = None


@dataclass(frozen=True)
class VramBudget:
    """At most ``limit`` bytes of VRAM in one phase."""

    limit: int
    phase: Phase


@dataclass(frozen=True)
class VramLeak:
    """At most ``limit`` bytes are left behind."""

    limit: int


@dataclass(frozen=True)
class FasterThan:
    """Takes at most ``1 - by`` of the time of ``reference``."""

    reference: str
    by: float


@dataclass(frozen=True)
class OutputEquivalent:
    """The output is that of ``to`` within limits; None leaves a limit to the default or unchecked.

    ``rel_l2`` and ``max_abs`` are upper limits on latents, ``cosine`` and ``psnr`` (dB) lower ones;
    ``image_psnr`` (dB) is one on the decoded image.
    """

    to: str
    rel_l2: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    psnr: float | None = None
    image_psnr: float | None = None


@dataclass(frozen=True)
class LoraEffect:
    """The least effect gain of each layer."""

    min_gain: float


@dataclass(frozen=True)
class NeedsGpu:
    """Run only on a CUDA device with at least so many bytes and this compute capability."""

    vram: int | None
    capability: tuple[int, int] | None


@dataclass(frozen=True)
class AllowOrder:
    """One rule on the order of operations that this test may break, and why."""

    code: str
    reason: str


@dataclass(frozen=True)
class Gates:
    """All that the markers of one test ask for."""

    strategies: tuple[str, ...] = ()
    latency: tuple[LatencyBudget, ...] = ()
    vram: tuple[VramBudget, ...] = ()
    faster: tuple[FasterThan, ...] = ()
    equivalent: tuple[OutputEquivalent, ...] = ()
    needs: tuple[NeedsGpu, ...] = ()
    allowed: tuple[AllowOrder, ...] = ()
    effect: LoraEffect | None = None
    leak: VramLeak | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """Every arm that this test is compared with."""
        return (
            *(budget.of for budget in self.latency if budget.of),
            *(faster.reference for faster in self.faster),
            *(equivalent.to for equivalent in self.equivalent),
        )

    @property
    def timed(self) -> bool:
        """Whether a gate needs something that can be replayed or compared."""
        return bool(self.latency or self.faster or self.equivalent)


def lora_strategy(*names: str) -> tuple[str, ...]:
    """Read the arguments of ``lora_strategy``."""
    if not names or not all(isinstance(name, str) for name in names):
        raise MarkerError(f"takes names of strategies, got {names!r}")
    return names


def latency_budget(limit: object = None, *, ratio: object = None, of: object = None) -> LatencyBudget:
    """Read the arguments of ``latency_budget``."""
    if (limit is None) == (ratio is None):
        raise MarkerError('takes either a limit, such as "1.5s", or ratio= and of=')
    if (ratio is None) != (of is None):
        raise MarkerError('ratio= and of= go together, such as ratio=1.05, of="standard_lora"')
    if limit is not None:
        return LatencyBudget(parse_duration(limit))
    return LatencyBudget(parse_ratio(ratio), _name("of", of))


def vram_budget(limit: object, *, phase: object = "runtime") -> VramBudget:
    """Read the arguments of ``vram_budget``."""
    if phase not in PHASES:
        raise MarkerError(f"phase={phase!r}; the phases are {', '.join(PHASES)}")
    return VramBudget(parse_size(limit), phase)


def vram_leak(limit: object) -> VramLeak:
    """Read the arguments of ``vram_leak``."""
    return VramLeak(parse_size(limit))


def faster_than(reference: object, *, by: object = "0%") -> FasterThan:
    """Read the arguments of ``faster_than``."""
    return FasterThan(_name("reference", reference), parse_percent(by))


def output_equivalent(
    to: object,
    *,
    rel_l2: object = None,
    max_abs: object = None,
    cosine: object = None,
    psnr: object = None,
    image_psnr: object = None,
) -> OutputEquivalent:
    """Read the arguments of ``output_equivalent``."""
    return OutputEquivalent(
        _name("to", to),
        _limit("rel_l2", rel_l2, low=0),
        _limit("max_abs", max_abs, low=0),
        _limit("cosine", cosine, low=-1, high=1),
        _limit("psnr", psnr),
        _limit("image_psnr", image_psnr),
    )


def lora_effect(*, min_gain: object) -> LoraEffect:
    """Read the arguments of ``lora_effect``."""
    limit = _limit("min_gain", min_gain, low=0, high=1)
    if limit is None:
        raise MarkerError("min_gain=None; a number from 0 to 1 is allowed")
    return LoraEffect(limit)


def needs_gpu(*, vram: object = None, capability: object = None) -> NeedsGpu:
    """Read the arguments of ``needs_gpu``."""
    size = None if vram is None else parse_size(vram)
    return NeedsGpu(size, None if capability is None else _capability(capability))


def allow_order(code: object, *, reason: object) -> AllowOrder:
    """Read the arguments of ``allow_order``."""
    from pytest_loraperf.order.rules import RULES  # noqa: PLC0415 - only for this marker

    codes = [rule.code for rule in RULES]
    if not isinstance(code, str) or code not in codes:
        raise MarkerError(f"code={code!r}; the codes are {', '.join(codes)}")
    if not isinstance(reason, str) or not reason.strip():
        raise MarkerError(f"reason={reason!r}; say why the order is right here")
    return AllowOrder(code, reason)


def _name(argument: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise MarkerError(f"{argument}={value!r}; the name of a strategy or workload is allowed")
    return value


def _limit(argument: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        span = f" from {low} to {high}" if high < math.inf else f" of at least {low}" if low > -math.inf else ""
        raise MarkerError(f"{argument}={value!r}; a number{span} is allowed")
    return float(value)


def _capability(value: object) -> tuple[int, int]:
    parts = value.split(".") if isinstance(value, str) else list(value) if isinstance(value, tuple | list) else []
    if len(parts) != 2 or not all(str(part).isdecimal() for part in parts):  # noqa: PLR2004 - major, minor
        raise MarkerError(f'capability={value!r}; write it as "8.9"')
    return int(parts[0]), int(parts[1])


READERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        lora_strategy,
        latency_budget,
        vram_budget,
        vram_leak,
        faster_than,
        output_equivalent,
        lora_effect,
        needs_gpu,
        allow_order,
    )
}
