"""The strategy table, as lines of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.units import format_duration, format_size

NOTHING = "nothing was measured; use a strategy's fixture with a latency, VRAM or equivalence marker"
MIN_WIDTH = 40
NAME_WIDTH = 28
STEPS_WIDTH = 46


@dataclass(frozen=True)
class Column:
    """A column: its title, its cell for a strategy, and how early it is dropped (0 never, then the highest)."""

    title: str
    cell: Callable[[Results, str, StrategyResult], str]
    drop: int = 0
    right: bool = True


def plain(text: str) -> str:
    """Return text with nothing in it that moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _name(_: Results, name: str, found: StrategyResult) -> str:
    return _cut(f"{plain(name)} ✗" if found.mistake else plain(name), NAME_WIDTH)


def _steps(_: Results, __: str, found: StrategyResult) -> str:
    return _cut(" → ".join(plain(step) for step in found.steps) or "–", STEPS_WIDTH)


def _setup(_: Results, __: str, found: StrategyResult) -> str:
    return f"{sum(step.seconds for step in found.setup):.2f}" if found.setup else "–"


def _latency(_: Results, __: str, found: StrategyResult) -> str:
    if found.error:
        return "error"
    return format_duration(found.latency.median_s) if found.latency else "–"


def _interval(_: Results, __: str, found: StrategyResult) -> str:
    if not found.latency:
        return "–"
    return "–".join(f"{edge:.3g}" for edge in found.latency.ci_s)


def _ratio(_: Results, __: str, found: StrategyResult) -> str:
    if found.ratio is None:
        return "–"
    return f"{found.ratio.value:.2f}×" + ("" if found.ratio.interleaved else "~")


def _vram(phase: str) -> Callable[[Results, str, StrategyResult], str]:
    def cell(_: Results, __: str, found: StrategyResult) -> str:
        size = getattr(found.vram, phase)
        return "–" if size is None else format_size(size)

    return cell


def _distance(_: Results, __: str, found: StrategyResult) -> str:
    return "–" if found.output is None or found.output.rel_l2 is None else f"{found.output.rel_l2:.4f}"


def _effect(_: Results, __: str, found: StrategyResult) -> str:
    kept = None if found.output is None else found.output.effect_kept
    return "–" if kept is None else f"{kept:.2f}"


def _verdict(results: Results, name: str, _: StrategyResult) -> str:
    return results.verdict_of(name) or "–"


COLUMNS = (
    Column("strategy", _name, right=False),
    Column("steps", _steps, drop=3, right=False),
    Column("set-up s", _setup, drop=6),
    Column("generation", _latency),
    Column("interval s", _interval, drop=7),
    Column("ratio", _ratio, drop=1),
    Column("VRAM set-up", _vram("setup_peak"), drop=5),
    Column("resident", _vram("resident"), drop=8),
    Column("runtime", _vram("runtime_peak"), drop=2),
    Column("rel. L2", _distance, drop=4),
    Column("effect", _effect, drop=9),
    Column("verdict", _verdict),
)


def strategy_table(results: Results, width: int) -> Iterator[str]:
    """Yield the table and its footnotes, no line wider than ``width`` (at least 40)."""
    width = max(width, MIN_WIDTH)
    if not results.strategies:
        yield from textwrap.wrap(NOTHING, width)
        return
    yield from _rows(results, width)
    for note in _footnotes(results):
        yield from textwrap.wrap(plain(note), width, subsequent_indent="  ") or [""]


def cells(results: Results, columns: Sequence[Column]) -> list[list[str]]:
    """Return the titles and then the cells of each strategy."""
    body = [
        [column.cell(results, name, found) for column in columns] for name, found in results.strategies.items()
    ]
    return [[column.title for column in columns], *body]


def _rows(results: Results, width: int) -> Iterator[str]:
    columns = list(COLUMNS)
    while True:
        table = cells(results, columns)
        widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
        droppable = max(columns, key=lambda column: column.drop)
        if sum(widths) + 2 * (len(widths) - 1) <= width or droppable.drop == 0:
            break
        columns.remove(droppable)
    for row in table:
        parts = (
            cell.rjust(size) if column.right else cell.ljust(size)
            for cell, size, column in zip(row, widths, columns, strict=True)
        )
        yield _cut("  ".join(parts).rstrip(), width)


def _footnotes(results: Results) -> Iterator[str]:
    found = results.strategies
    references = sorted({each.ratio.of for each in found.values() if each.ratio})
    if references:
        yield f"ratio: time over that of {', '.join(references)}"
    if any(each.ratio and not each.ratio.interleaved for each in found.values()):
        yield "~ measured in turns, not in the same rounds"
    if any(each.output for each in found.values()):
        yield "rel. L2: distance of the output to the reference's; effect: share of the LoRA's effect that it has"
    yield from _scheme_notes(results)
    if results.machine.memory_kind not in ("", "VRAM"):
        yield f"VRAM columns: counted {results.machine.memory_kind}, for there is no CUDA here"
    yield from (f"✗ {name}: {each.mistake}" for name, each in found.items() if each.mistake)
    yield from (f"error in {name}: {each.error}" for name, each in found.items() if each.error)


def _scheme_notes(results: Results) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, each in results.strategies.items():
        if each.scheme and each.scheme_reason:
            reasons.setdefault((each.scheme, each.scheme_reason), []).append(name)
    for (scheme, reason), names in reasons.items():
        yield f"{scheme}: {reason} ({', '.join(names)})"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
