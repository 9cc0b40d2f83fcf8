"""``loraperf compare``: two results files, measured in different runs, strategy by strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import Machine, Results, StrategyResult, read_results
from pytest_loraperf.report.table import NONE, aligned, one_line
from pytest_loraperf.units import format_duration, four_digits
from pytest_loraperf.verdict.codes import Code
from pytest_loraperf.verdict.decision import Decision, status_of
from pytest_loraperf.verdict.types import Status, Verdict
from pytest_loraperf.verdict.unpaired import decide_unpaired

CODE: Final = "slowdown"
TITLES = ("strategy", "base s", "new s", "ratio", "interval", "verdict")
CPU_UNKNOWN = "both ran on a CPU, and results do not say on which: see to it that it was the same machine"
NOTHING_COMPARED = "nothing was compared: no strategy has samples in both; measure the time of one in both"
MORE_SAMPLES = "measure both with more rounds on a quieter machine, or raise --max-slowdown"
STRATEGY = ("steps", "scheme", "requests", "adapters")
"""What strategies of one name must share to be the same."""
_SHOWN = 40
_TESTS = 3


@dataclass(frozen=True)
class Compared:
    """One strategy of either run: its median seconds (None: no samples) and the verdict on their ratio.

    ``won`` says that NEW is faster by more than the margin that the limit allows it to be slower.
    """

    name: str
    verdict: Verdict
    base_s: float | None = None
    new_s: float | None = None
    decision: Decision | None = None
    won: bool = False


@dataclass(frozen=True)
class Comparison:
    """All strategies of two runs, those of BASE first, and notes on what the comparison cannot know."""

    strategies: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """The worst verdict; INCONCLUSIVE where there was nothing to judge."""
        found = {each.verdict.status for each in self.strategies}
        return next(
            (s for s in (Status.FAIL, Status.INCONCLUSIVE, Status.PASS) if s in found), Status.INCONCLUSIVE
        )


def run_compare(
    base: Path, new: Path, max_slowdown: float, across_machines: bool, show: Callable[[str], None]
) -> Status:
    """Compare two results files, show the lines, and return the worst verdict.

    Args:
        base: the results file to compare with.
        new: the results file that is judged.
        max_slowdown: by what fraction a strategy may be slower: 0.05 allows 1.05 times the time.
        across_machines: compare even where machine, model or request differ, and say what that costs.
        show: called with each line.

    Raises:
        LoraperfError: a file is no results file, or the two cannot be compared.
    """
    comparison = compare(read_positive(base), read_positive(new), max_slowdown, across_machines=across_machines)
    for line in comparison_lines(comparison):
        show(line)
    return comparison.status


def compare(base: Results, new: Results, max_slowdown: float, *, across_machines: bool = False) -> Comparison:
    """Judge each strategy of two runs; ``max_slowdown`` is a fraction.

    Raises:
        LoraperfError: no strategy is in both, or machine, model or request differ and ``across_machines`` is off.
    """
    if not base.strategies.keys() & new.strategies.keys():
        what = (
            f"no strategy in common: BASE has {_names(base)}, NEW has {_names(new)}; measure the same strategies"
        )
        raise LoraperfError("; ".join([what, *left_out(base, new)]))
    differences = one_line(", ".join(_differences(base, new)))
    if differences and not across_machines:
        raise LoraperfError(
            f"BASE and NEW differ in {differences}: a ratio of their times would not be that of a change in code; "
            "measure both alike, or compare them all the same with --across-machines"
        )
    names = dict.fromkeys((*base.strategies, *new.strategies))
    strategies = tuple(
        judge_strategy(name, base.strategies.get(name), new.strategies.get(name), 1 + max_slowdown)
        for name in names
    )
    notes = (*_notes(base.machine, new.machine, differences, strategies), *left_out(base, new))
    return Comparison(strategies, notes)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the table, what did not pass, what was won, and the notes; each is one line."""
    yield from _table(comparison.strategies)
    for each in comparison.strategies:
        if each.verdict.status is not Status.PASS:
            yield one_line(f"{each.verdict.status}: {each.verdict.message}")
    for each in comparison.strategies:
        if each.won:
            yield one_line(f"WIN: {each.verdict.message}")
    yield from map(one_line, comparison.notes)


def read_positive(path: Path) -> Results:
    """Read a results file whose times can be compared.

    Raises:
        LoraperfError: it is no results file, or a time in it is not positive.
    """
    results = read_results(path)
    series: list[tuple[str, Sequence[float | None]]] = [
        (f"strategies[{name!r}].samples_s", each.samples_s) for name, each in results.strategies.items()
    ]
    for number, taken in enumerate(results.comparisons):
        series += [(f"comparisons[{number}].samples_s[{arm!r}]", times) for arm, times in taken.samples_s.items()]
    for where, times in series:
        for place, seconds in enumerate(times):
            if seconds is not None and seconds <= 0:
                raise LoraperfError(
                    f"results {path}: results.{where}[{place}] is {seconds}, "
                    "a positive number is expected; measure again to write it anew"
                )
    return results


def left_out(*runs: Results) -> list[str]:
    """Return a line on what tests timed of their own code, which only a baseline holds; no line where none did."""
    tests = dict.fromkeys(test for each in runs for found in each.comparisons for test in found.tests.values())
    if not tests:
        return []
    more = f" and {len(tests) - _TESTS} more" if len(tests) > _TESTS else ""
    names = one_line(", ".join(list(tests)[:_TESTS])) + more
    return [f"not compared: what tests gave to gpu_workload ({names}); hold it with --loraperf-baseline"]


def _names(results: Results) -> str:
    return one_line(", ".join(results.strategies)) or "none"


def _differences(base: Results, new: Results) -> Iterator[str]:
    yield from run_differences(base, new)
    for name in (name for name in base.strategies if name in new.strategies):
        yield from strategy_differences(name, base.strategies[name], new.strategies[name])


def run_differences(base: Results, new: Results, *, but: Collection[str] = ()) -> Iterator[str]:
    """Yield in what machine, software, model and request differ, ``but`` these."""
    sides = [_identity(each) for each in (base, new)]
    for what in dict.fromkeys((*sides[0], *sides[1])):
        first, second = (side.get(what) for side in sides)
        if first != second and what not in but:
            yield f"{what} ({_show(first)} against {_show(second)})"


def strategy_differences(
    name: str, base: StrategyResult, new: StrategyResult, whats: Sequence[str] = STRATEGY
) -> Iterator[str]:
    """Yield what two strategies of one name do not share; what a file does not tell is not held against it."""
    for what in whats:
        first, second = getattr(base, what), getattr(new, what)
        told = (first and second) or (what == "adapters" and base.samples_s and new.samples_s)
        if told and first != second:
            yield f"{what} of {one_line(name)} ({_between(first, second)})"


def _identity(results: Results) -> dict[str, object]:
    """Return what times depend on; which of several equal cards, and how bytes are counted, are not of it."""
    software, request = software_of(results.machine), results.request
    return {
        "device": results.machine.name,
        **software,
        "model": results.model,
        **{f"request {name}": value for name, value in request.items()},
    }


def software_of(machine: Machine) -> dict[str, str | None]:
    """Return the software that times depend on; of the driver its major version alone."""
    return {
        "driver": machine.driver and machine.driver.partition(".")[0],
        "torch": machine.torch,
        "backend": machine.backend,
    }


def _between(first: object, second: object) -> str:
    """Return the two, or of two series of requests the arguments that differ."""
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second):
        pairs = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
        if pairs and all(isinstance(each, Mapping) for each in pairs[0]):
            one, other = pairs[0]
            names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
            return ", ".join(f"{name} {_show(one.get(name))} against {_show(other.get(name))}" for name in names)
    return f"{_show(first or 'none')} against {_show(second or 'none')}"


def _show(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _notes(base: Machine, new: Machine, differences: str, strategies: tuple[Compared, ...]) -> Iterator[str]:
    if not any(each.decision for each in strategies):
        yield NOTHING_COMPARED
    if differences:
        yield (
            f"lost with --across-machines: BASE and NEW differ in {differences}; "
            "a ratio holds the effect of that too, and no verdict is on a change in code alone"
        )
    if base.device == new.device == "cpu":
        yield CPU_UNKNOWN


def judge_strategy(name: str, base: StrategyResult | None, new: StrategyResult | None, limit: float) -> Compared:
    """Judge one strategy of two runs, which may lack it; ``limit`` is a ratio of its positive times."""
    base_s, new_s = _median(base), _median(new)
    if base and new and base_s and new_s and not new.error:
        return _judge_times(name, base.samples_s, new.samples_s, limit)
    return Compared(name, Verdict(*_judge_absence(name, base, new)), base_s, new_s)


def _median(found: StrategyResult | None) -> float | None:
    return median(found.samples_s) if found and found.samples_s else None


def _judge_absence(name: str, base: StrategyResult | None, new: StrategyResult | None) -> tuple[Status, Code, str]:
    if new and new.error:
        return Status.FAIL, CODE, f"{name} has an error in NEW: {new.error}; mend it and measure again"
    if not new:
        return Status.INCONCLUSIVE, CODE, f"{name} is missing in NEW; measure it, or take it out of BASE"
    if not base:
        return Status.SKIPPED, CODE, f"{name} is only in NEW: there is nothing to compare it with"
    if not base.samples_s and not new.samples_s:
        return Status.SKIPPED, CODE, f"{name} has no samples in BASE nor in NEW: there is nothing to compare"
    side = "NEW" if base.samples_s else "BASE"
    why = f" (error: {base.error})" if base.error and side == "BASE" else ""
    return Status.INCONCLUSIVE, CODE, f"{name} has no samples in {side}{why}; measure its time in both"


def _judge_times(name: str, base: tuple[float, ...], new: tuple[float, ...], limit: float) -> Compared:
    found = decide_unpaired(new, base, max_ratio=limit)
    low, high = found.interval
    # With the files swapped it would be too slow.
    won = status_of((1 / high if high else math.inf, math.inf), limit) is Status.FAIL
    head = (
        f"{name} takes {found.ratio:.3f}× as long as in BASE "
        f"({low:.3f}–{high:.3f}, {len(new)} against {len(base)} samples)"
    )
    detail = tuple(
        f"{side}: {' '.join(map(format_duration, times))}" for side, times in (("BASE", base), ("NEW", new))
    )
    verdict = Verdict(found.status, CODE, head + _outcome(found, limit, won), detail)
    return Compared(name, verdict, median(base), median(new), found, won)


def _outcome(found: Decision, limit: float, won: bool) -> str:
    allowed = f"the allowed {limit:.4g}×"
    if won:
        return f", faster by more than the margin of {_percent(limit)}; keep NEW as the next BASE to hold it"
    if found.status is Status.PASS:
        return f", within {allowed}"
    if found.status is Status.FAIL:
        return (
            f", over {allowed}; measure BASE again, as clocks and neighbours differ between runs too, "
            "then look for what changed, or raise --max-slowdown"
        )
    return f": cannot tell whether it holds {allowed}; {_could_hold(found.interval[1])}; {MORE_SAMPLES}"


def _could_hold(edge: float) -> str:
    """Say the least limit that would have passed, rounded up so that it would."""
    if math.isinf(edge):
        return "so few samples can hold no limit at all"
    slower = math.ceil(edge * 1000) / 1000 - 1
    # A percentage of 100 or more is no --max-slowdown.
    option = f" (--max-slowdown={_percent(1 + slower)})" if slower < 1 else ""
    return f"it would have held {1 + slower:.3f}×{option}"


def _percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:.3g}%"


def _table(strategies: tuple[Compared, ...]) -> Iterator[str]:
    # Names and verdicts are read from the left, numbers from the right.
    yield from aligned([TITLES, *map(_cells, strategies)], left=(0, len(TITLES) - 1))


def _cells(each: Compared) -> tuple[str, ...]:
    found = each.decision
    return (
        one_line(each.name),
        NONE if each.base_s is None else four_digits(each.base_s),
        NONE if each.new_s is None else four_digits(each.new_s),
        f"{found.ratio:.3f}×" if found else NONE,
        f"{found.interval[0]:.3f}–{found.interval[1]:.3f}" if found else NONE,
        "WIN" if each.won else each.verdict.status,
    )
