"""What users report of the order of operations, as data: the claims, and the figures that they come with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_loraperf.units import format_size

GB = 2**30


@dataclass(frozen=True)
class Faster:
    """Claim: a generation of ``strategy`` takes at most the time of one of ``than``, less the fraction ``by``."""

    strategy: str
    than: str
    by: float = 0.0

    def __str__(self) -> str:
        saved = f" by {self.by:.0%}" if self.by else ""
        return f"{self.strategy} is faster than {self.than}{saved}"


@dataclass(frozen=True)
class Loads:
    """Claim: the step that puts the LoRA in takes ``strategy`` no longer than ``than``."""

    strategy: str
    than: str

    def __str__(self) -> str:
        return f"{self.strategy} loads the LoRA faster than {self.than}"


@dataclass(frozen=True)
class Smaller:
    """Claim: ``strategy`` needs at most ``share`` of the VRAM of ``than`` to run."""

    strategy: str
    than: str
    share: float = 1.0

    def __str__(self) -> str:
        saved = f" by {1 - self.share:.0%}" if self.share < 1 else ""
        return f"{self.strategy} is smaller than {self.than}{saved}"


@dataclass(frozen=True)
class Fits:
    """Claim: ``strategy`` runs in so many bytes."""

    strategy: str
    size: int

    def __str__(self) -> str:
        return f"{self.strategy} runs in {format_size(self.size)}"


Pair = Faster | Loads | Smaller
Single = Pair | Fits


@dataclass(frozen=True)
class Every:
    """Claim: each of ``parts`` holds; ``said`` is that in words."""

    said: str
    parts: tuple[Pair, ...]

    def __str__(self) -> str:
        return self.said


Claim = Single | Every


@dataclass(frozen=True)
class Reported:
    """What users report of a strategy on some machine: seconds a generation, and VRAM in bytes."""

    seconds: float
    vram: int


REPORTED: Mapping[str, Reported] = {
    "standard_lora": Reported(12.5, 24 * GB),
    "quantize_then_lora": Reported(15.2, 14 * GB),
    "lora_then_quantize": Reported(11.8, 14 * GB),
    "fused": Reported(10.2, 24 * GB),
    "fused_then_quantize": Reported(9.8, 14 * GB),
    "low_vram": Reported(18.5, 8 * GB),
    "low_vram_optimized": Reported(16.2, 6 * GB),
}
"""The table that the claims come with; on which card is not said, so only what it compares can be held to it."""


def _others(name: str) -> tuple[str, ...]:
    return tuple(other for other in REPORTED if other != name)


RANKING: tuple[Claim, ...] = (
    Faster("fused", "standard_lora"),
    Faster("lora_then_quantize", "standard_lora"),
    Faster("lora_then_quantize", "quantize_then_lora"),
    Faster("fused_then_quantize", "quantize_then_lora"),
    Faster("fused_then_quantize", "fused"),
    Faster("low_vram_optimized", "low_vram"),
    Smaller("lora_then_quantize", "standard_lora", 0.6),
    Smaller("fused_then_quantize", "fused", 0.6),
    Smaller("low_vram_optimized", "low_vram"),
    Fits("low_vram", 8 * GB),
    Fits("low_vram_optimized", 6 * GB),
)
"""What each run says of itself: the ranking, 40 % saved by fp8, cards of 8 and of 6 GB."""

CLAIMS: tuple[Claim, ...] = (
    Loads("lora_then_quantize", "quantize_then_lora"),
    Faster("lora_then_quantize", "quantize_then_lora"),
    Faster("lora_then_quantize", "standard_lora", by=0.1),
    Smaller("lora_then_quantize", "standard_lora", 0.6),
    Faster("fused", "standard_lora", by=0.2),
    Every(
        "fused_then_quantize is the fastest",
        tuple(Faster("fused_then_quantize", other) for other in _others("fused_then_quantize")),
    ),
    Smaller("fused_then_quantize", "standard_lora", 0.6),
    Fits("low_vram", 8 * GB),
    Every("low_vram is slower than all others", tuple(Faster(other, "low_vram") for other in _others("low_vram"))),
    Fits("low_vram_optimized", 6 * GB),
    Faster("low_vram_optimized", "low_vram"),
    Every(
        "low_vram_optimized is the smallest",
        tuple(Smaller("low_vram_optimized", other) for other in _others("low_vram_optimized")),
    ),
)
"""All that is reported, with its figures, in its order. Of a range, such as 20 to 30 %, the lower end is held."""
