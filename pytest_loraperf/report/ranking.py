"""Whether what users report of the strategies holds on this machine, by a run's own samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_loraperf.report.claims import RANKING, Claim, Every, Faster, Fits, Loads, Pair, Single, Smaller
from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.units import format_size
from pytest_loraperf.verdict.decision import CLEAR, CLEAR_ROUNDS, FIRST_LOOK, Decision, decide, status_of
from pytest_loraperf.verdict.types import Status
from pytest_loraperf.verdict.unpaired import decide_unpaired

TITLES: Mapping[Status, str] = {
    Status.PASS: "ranking, holds here",
    Status.FAIL: "ranking, does not hold here",
    Status.INCONCLUSIVE: "ranking, cannot tell",
}
_LOADING = ("attach", "fuse")
_WORST = (Status.FAIL, Status.INCONCLUSIVE, Status.PASS)


@dataclass(frozen=True)
class Found:
    """A claim, whether it holds (PASS), and what was measured.

    ``ratio`` is of times or of bytes, None where one size was held to a limit; ``detail`` is its interval, or the
    sizes. ``apart`` says that two times were not measured in the same rounds.
    """

    claim: Claim
    status: Status
    ratio: float | None
    detail: str
    apart: bool = False

    @property
    def measured(self) -> str:
        """What was measured, in words; of sizes these are enough."""
        return self.detail if self.ratio is None or isinstance(self.claim, Smaller) else self.figures

    @property
    def figures(self) -> str:
        """What was measured, with the ratio."""
        return self.detail if self.ratio is None else f"{self.ratio:.2f}×, {self.detail}"

    def __str__(self) -> str:
        return f"{self.claim} ({self.measured})"


def ranking(results: Results, claims: Sequence[Claim] = RANKING) -> Iterator[Found]:
    """Yield each of the claims that this run's own samples say something about.

    Times are judged at an error of 1 % a side for each pair: within rounds where the two shared some, else as
    samples of the same run that were taken apart. Sizes are compared as they are. A claim about bytes is about
    VRAM: without CUDA it is left out.
    """
    measured = {name: found for name, found in results.strategies.items() if not found.error}
    for claim in claims:
        found = _every(results, claim, measured) if isinstance(claim, Every) else _judged(results, claim, measured)
        if found is not None:
            yield found


def ranking_lines(results: Results) -> Iterator[str]:
    """Yield a line for the claims that hold, for those that do not, and for those that cannot be told."""
    found = list(ranking(results))
    for status, title in TITLES.items():
        said = [str(each) for each in found if each.status is status]
        if said:
            yield f"{title}: {', '.join(said)}"


def _every(results: Results, claim: Every, measured: Mapping[str, StrategyResult]) -> Found | None:
    """Judge a claim of several parts by the worst of them, and of those by the one of the largest ratio."""
    judged = [(part, _judged(results, part, measured)) for part in claim.parts]
    known = [(part, found) for part, found in judged if found is not None]
    if not known:
        return None
    status = next(status for status in _WORST if any(found.status is status for _, found in known))
    worst = [(part, found) for part, found in known if found.status is status]
    part, decisive = max(worst, key=lambda each: each[1].ratio or 0)
    detail = f"{decisive.detail} ({_pair(part)})"
    lacking = ", ".join(_pair(part) for part, found in judged if found is None)
    if lacking and status is not Status.FAIL:
        status, detail = Status.INCONCLUSIVE, f"{detail}; nothing known of {lacking}"
    return replace(decisive, claim=claim, status=status, detail=detail)


def _pair(part: Pair) -> str:
    return f"{part.strategy} to {part.than}"


def _judged(results: Results, claim: Single, measured: Mapping[str, StrategyResult]) -> Found | None:
    strategy = measured.get(claim.strategy)
    than = strategy if isinstance(claim, Fits) else measured.get(claim.than)
    if strategy is None or than is None:
        return None
    match claim:
        case Faster():
            return _faster(results, claim, strategy, than)
        case Loads():
            return _loads(claim, strategy, than)
        case Smaller():
            return _smaller(results, claim, strategy, than)
        case Fits():
            return _fits(results, claim, strategy)


def _faster(results: Results, claim: Faster, strategy: StrategyResult, than: StrategyResult) -> Found | None:
    samples, reference, interleaved = _shared(results, claim)
    decision: Decision | None = None
    if len(samples) >= FIRST_LOOK:
        decision = decide(samples, reference, max_ratio=1 - claim.by)
    elif min(len(strategy.samples_s), len(than.samples_s)) >= CLEAR_ROUNDS and strategy.requests == than.requests:
        decision, interleaved = decide_unpaired(strategy.samples_s, than.samples_s, max_ratio=1 - claim.by), False
    if decision is None:
        return None
    low, high = decision.interval
    return Found(claim, decision.status, decision.ratio, f"{low:.2f}–{high:.2f}", apart=not interleaved)


def _shared(results: Results, claim: Faster) -> tuple[list[float], list[float], bool]:
    """Return the longest series of rounds that both were in, and whether it was interleaved."""
    best: tuple[list[float], list[float], bool] = ([], [], False)
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
            best = [mine for mine, _ in pairs], [other for _, other in pairs], taken.interleaved
    return best


def _loads(claim: Loads, strategy: StrategyResult, than: StrategyResult) -> Found | None:
    """Judge seconds that there is one sample of: all that was seen, widened as the verdicts on few rounds are."""
    mine, other = _loading(strategy), _loading(than)
    if not mine or not other:
        return None
    ratio = mine / other
    low, high = ratio / CLEAR, ratio * CLEAR
    return Found(claim, status_of((low, high), 1.0), ratio, f"{low:.2f}–{high:.2f}, timed once each", apart=True)


def _loading(found: StrategyResult) -> float:
    return sum(each.seconds for each in found.setup if each.step in _LOADING)


def _smaller(results: Results, claim: Smaller, strategy: StrategyResult, than: StrategyResult) -> Found | None:
    used, other = strategy.vram.runtime_peak, than.vram.runtime_peak
    if results.machine.memory_kind != "VRAM" or not used or not other:
        return None
    status = Status.PASS if used <= claim.share * other else Status.FAIL
    return Found(claim, status, used / other, f"{format_size(used)} of {format_size(other)}")


def _fits(results: Results, claim: Fits, strategy: StrategyResult) -> Found | None:
    used = strategy.vram.runtime_peak
    if results.machine.memory_kind != "VRAM" or not used or results.model.endswith(":tiny"):
        return None
    return Found(claim, Status.PASS if used <= claim.size else Status.FAIL, None, format_size(used))
