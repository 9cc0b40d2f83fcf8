"""Whether the ranking of the strategies that users report holds on this machine, by a run's own samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.units import format_size
from pytest_loraperf.verdict.decision import CLEAR_ROUNDS, FIRST_LOOK, Decision, decide
from pytest_loraperf.verdict.types import Status
from pytest_loraperf.verdict.unpaired import decide_unpaired

GB = 2**30


@dataclass(frozen=True)
class Faster:
    """Claim: a generation of ``strategy`` takes no longer than one of ``than``."""

    strategy: str
    than: str

    def __str__(self) -> str:
        return f"{self.strategy} is faster than {self.than}"


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


Claim = Faster | Smaller | Fits

CLAIMS: tuple[Claim, ...] = (
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
"""What users report of the order of operations: the ranking, 40 % saved by fp8, cards of 8 and of 6 GB."""

TITLES: Mapping[Status, str] = {
    Status.PASS: "ranking, holds here",
    Status.FAIL: "ranking, does not hold here",
    Status.INCONCLUSIVE: "ranking, cannot tell",
}


@dataclass(frozen=True)
class Found:
    """A claim, whether it holds (PASS), and what was measured."""

    claim: Claim
    status: Status
    measured: str

    def __str__(self) -> str:
        return f"{self.claim} ({self.measured})"


def ranking(results: Results) -> Iterator[Found]:
    """Yield each claim that this run's own samples say something about.

    Times are judged at an error of 1 % a side for each claim: within rounds where the two shared some, else as
    samples of the same run that were taken apart. Sizes are compared as they are. A claim about bytes is about
    VRAM: without CUDA it is left out.
    """
    measured = {name: found for name, found in results.strategies.items() if not found.error}
    for claim in CLAIMS:
        found = _judged(results, claim, measured)
        if found is not None:
            yield found


def ranking_lines(results: Results) -> Iterator[str]:
    """Yield a line for the claims that hold, for those that do not, and for those that cannot be told."""
    found = list(ranking(results))
    for status, title in TITLES.items():
        said = [str(each) for each in found if each.status is status]
        if said:
            yield f"{title}: {', '.join(said)}"


def _judged(results: Results, claim: Claim, measured: Mapping[str, StrategyResult]) -> Found | None:
    strategy = measured.get(claim.strategy)
    than = strategy if isinstance(claim, Fits) else measured.get(claim.than)
    if strategy is None or than is None:
        return None
    match claim:
        case Faster():
            return _faster(results, claim, strategy, than)
        case Smaller():
            return _smaller(results, claim, strategy, than)
        case Fits():
            return _fits(results, claim, strategy)


def _faster(results: Results, claim: Faster, strategy: StrategyResult, than: StrategyResult) -> Found | None:
    decision = _decision(results, claim, strategy, than)
    if decision is None:
        return None
    low, high = decision.interval
    return Found(claim, decision.status, f"{decision.ratio:.2f}×, {low:.2f}–{high:.2f}")


def _decision(results: Results, claim: Faster, strategy: StrategyResult, than: StrategyResult) -> Decision | None:
    samples, reference = _shared(results, claim)
    if len(samples) >= FIRST_LOOK:
        return decide(samples, reference, max_ratio=1.0)
    if min(len(strategy.samples_s), len(than.samples_s)) < CLEAR_ROUNDS or strategy.requests != than.requests:
        return None
    return decide_unpaired(strategy.samples_s, than.samples_s, max_ratio=1.0)


def _shared(results: Results, claim: Faster) -> tuple[list[float], list[float]]:
    """Return the longest series of rounds that both were in."""
    best: tuple[list[float], list[float]] = ([], [])
    for taken in results.comparisons:
        if not {claim.strategy, claim.than} <= set(taken.samples_s):
            continue
        both = zip(taken.samples_s[claim.strategy], taken.samples_s[claim.than], strict=True)
        pairs = [
            (mine, other)
            for number, (mine, other) in enumerate(both)
            if mine is not None and other is not None and number not in taken.dropped
        ]
        if len(pairs) > len(best[0]):
            best = [mine for mine, _ in pairs], [other for _, other in pairs]
    return best


def _smaller(results: Results, claim: Smaller, strategy: StrategyResult, than: StrategyResult) -> Found | None:
    used, other = strategy.vram.runtime_peak, than.vram.runtime_peak
    if results.machine.memory_kind != "VRAM" or not used or not other:
        return None
    status = Status.PASS if used <= claim.share * other else Status.FAIL
    return Found(claim, status, f"{format_size(used)} of {format_size(other)}")


def _fits(results: Results, claim: Fits, strategy: StrategyResult) -> Found | None:
    used = strategy.vram.runtime_peak
    if results.machine.memory_kind != "VRAM" or not used or results.model.endswith(":tiny"):
        return None
    return Found(claim, Status.PASS if used <= claim.size else Status.FAIL, format_size(used))
