"""The strategy table, as lines of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from pytest_loraperf.limits import rates_shown
from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.units import format_size, four_digits

NOTHING = (
    "nothing was measured: give a test a strategy's fixture and a marker such as latency_budget or vram_budget "
    "(see the README)"
)
NONE = "–"
MIN_WIDTH = 40
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column: its title, its cell for a strategy, the widest that it gets, and which to drop first (0 never).

    One that is ``asked`` for is there only where a strategy has something in it.
    """

    title: str
    cell: Callable[[Results, str, StrategyResult], str]
    drop: int = 0
    # With the two other columns that stay, 12 leaves the name as much on the narrowest terminal.
    limit: int = 12
    right: bool = True
    asked: bool = False


def one_line(text: str) -> str:
    """Return text with nothing in it that breaks the line or moves a terminal's cursor."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return text with a ? for each character that breaks a line, moves a terminal's cursor, or is none."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _name(_: Results, name: str, found: StrategyResult) -> str:
    return one_line(name) + (" ✗" if found.mistake else "")


def _steps(_: Results, __: str, found: StrategyResult) -> str:
    return " → ".join(one_line(step) for step in found.steps) or NONE


def _setup(_: Results, __: str, found: StrategyResult) -> str:
    return f"{sum(step.seconds for step in found.setup):.2f}" if found.setup else NONE


def _latency(_: Results, __: str, found: StrategyResult) -> str:
    if found.error:
        return "error"
    return four_digits(found.latency.median_s) if found.latency else NONE


def _interval(_: Results, __: str, found: StrategyResult) -> str:
    if not found.latency:
        return NONE
    low, high = found.latency.ci_s
    return f"[{four_digits(low)}–{four_digits(high)}]"


def _ratio(_: Results, __: str, found: StrategyResult) -> str:
    if found.ratio is None:
        return NONE
    return f"{found.ratio.value:.2f}×" + ("" if found.ratio.interleaved else "~")


def _of_limit(_: Results, __: str, found: StrategyResult) -> str:
    return NONE if found.of_limit is None else _percent(found.of_limit)


def _percent(share: float) -> str:
    # Below a tenth, two digits after the first that counts: the tiny model is far from any limit.
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:.2g}%"  # noqa: PLR2004 - as 10%


def _vram(phase: str) -> Callable[[Results, str, StrategyResult], str]:
    def cell(_: Results, __: str, found: StrategyResult) -> str:
        size = getattr(found.vram, phase)
        return NONE if size is None else format_size(size)

    return cell


def _distance(_: Results, __: str, found: StrategyResult) -> str:
    return NONE if found.output is None or found.output.rel_l2 is None else f"{found.output.rel_l2:.4f}"


def _effect(_: Results, __: str, found: StrategyResult) -> str:
    kept = None if found.output is None else found.output.effect_kept
    return NONE if kept is None else f"{kept:.2f}"


def _gain(_: Results, __: str, found: StrategyResult) -> str:
    if found.lora is None or found.lora.gain_min is None or found.lora.gain_median is None:
        return NONE
    return f"{found.lora.gain_min:.2f}–{found.lora.gain_median:.2f}"


def _verdict(results: Results, name: str, _: StrategyResult) -> str:
    return results.verdict_of(name) or NONE


COLUMNS = (
    Column("strategy", _name, limit=40, right=False),
    Column("steps", _steps, drop=7, limit=46, right=False),
    Column("set-up s", _setup, drop=4),
    Column("s/generation", _latency),
    Column("interval", _interval, drop=8, limit=21),
    Column("ratio", _ratio, drop=10),
    Column("of the limit", _of_limit, drop=11, asked=True),
    Column("VRAM set-up", _vram("setup_peak"), drop=5),
    Column("VRAM resident", _vram("resident"), drop=6, limit=13),
    Column("VRAM runtime", _vram("runtime_peak"), drop=9),
    Column("rel. L2", _distance, drop=3),
    Column("effect", _effect, drop=1),
    Column("gain", _gain, drop=2),
    Column("verdict", _verdict),
)


def strategy_table(results: Results, width: int, columns: Sequence[Column] = COLUMNS) -> Iterator[str]:
    """Yield the table and its footnotes, no line wider than ``width`` characters (40 at the least).

    The first of the columns and those that are never dropped must fit that.
    """
    width = max(width, MIN_WIDTH)
    if not results.strategies:
        yield from textwrap.wrap(NOTHING, width)
        return
    columns = _fitting(results, with_something(results, columns), width)
    yield from _rows(results, columns, width)
    for note in footnotes(results, [column.title for column in columns]):
        yield from textwrap.wrap(note, width, subsequent_indent="  ")


def with_something(results: Results, columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return the columns but for those that are there only where they were asked for, and were not."""
    return [
        column
        for column in columns
        if not column.asked
        or any(column.cell(results, name, found) != NONE for name, found in results.strategies.items())
    ]


def cells(results: Results, columns: Sequence[Column]) -> list[list[str]]:
    """Return the titles and then the cells of each strategy, none of them cut."""
    body = [
        [column.cell(results, name, found) for column in columns] for name, found in results.strategies.items()
    ]
    return [[column.title for column in columns], *body]


def footnotes(results: Results, titles: Collection[str]) -> Iterator[str]:
    """Yield what the columns of these titles mean, then schemes, mistakes and errors; each is one line."""
    yield from _meanings(results, titles)
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, each in results.strategies.items():
        if each.scheme and each.scheme_reason:
            reasons.setdefault((each.scheme, each.scheme_reason), []).append(name)
    for (scheme, reason), names in reasons.items():
        yield one_line(f"{scheme}: {reason} ({', '.join(names)})")
    for name, each in results.strategies.items():
        if each.mistake:
            yield one_line(f"✗ {name} is a mistake: {each.mistake}")
        if each.error:
            yield one_line(f"error in {name}: {each.error}")


def _meanings(results: Results, titles: Collection[str]) -> Iterator[str]:
    ratios = [each.ratio for each in results.strategies.values() if each.ratio]
    outputs = [each.output for each in results.strategies.values() if each.output]
    if "ratio" in titles and ratios:
        yield one_line(f"ratio: time over that of {_listed(ratio.of for ratio in ratios)}")
        if not all(ratio.interleaved for ratio in ratios):
            yield "~ measured in turns, not in the same rounds"
    if "of the limit" in titles:
        yield from _limits(results)
    if "rel. L2" in titles and outputs:
        yield one_line(f"rel. L2: distance of the output to that of {_listed(out.reference for out in outputs)}")
    if "effect" in titles and any(out.effect_kept is not None for out in outputs):
        yield "effect: the share of the LoRA's effect on the output that is kept"
    if "gain" in titles and any(
        each.lora and each.lora.gain_min is not None for each in results.strategies.values()
    ):
        yield "gain: the share of the LoRA's intended effect in a layer, the lowest and the median"
    kind = results.machine.memory_kind
    if kind not in ("", "VRAM") and any(title.startswith("VRAM") for title in titles):
        yield one_line(f"VRAM columns: {kind} (no CUDA)")


def _limits(results: Results) -> Iterator[str]:
    limits = {name: each.limit for name, each in results.strategies.items() if each.limit}
    bounds: dict[str, list[str]] = {}
    for name, limit in limits.items():
        bounds.setdefault(limit.by, []).append(name)
    by = "; ".join(f"{bound}: {', '.join(names)}" for bound, names in bounds.items())
    if by:
        yield one_line(f"of the limit: the least time by this machine's rates, over the median ({by})")
    if results.machine.rates:
        yield one_line(f"rates: {', '.join(rates_shown(results.machine.rates))}")
    missing: dict[str, list[str]] = {}
    for name, limit in limits.items():
        for what in limit.not_counted:
            missing.setdefault(what, []).append(name)
    for what, names in missing.items():
        yield one_line(f"of the limit: {what} not counted ({', '.join(names)})")


def _listed(names: Iterator[str]) -> str:
    return ", ".join(sorted(set(names)))


def _fitting(results: Results, columns: Sequence[Column], width: int) -> list[Column]:
    columns = list(columns)
    for column in sorted((column for column in columns if column.drop), key=lambda column: column.drop):
        widths = _widths(results, columns)
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
            break
        columns.remove(column)
    return columns


def _widths(results: Results, columns: Sequence[Column]) -> list[int]:
    columnwise = zip(*cells(results, columns), strict=True)
    return [min(max(map(len, texts)), column.limit) for column, texts in zip(columns, columnwise, strict=True)]


def _rows(results: Results, columns: Sequence[Column], width: int) -> Iterator[str]:
    widths = _widths(results, columns)
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    # The name gives way last of all, when no column is left to drop.
    widths[0] -= max(excess, 0)
    rows = [
        [shortened(text, size) for text, size in zip(row, widths, strict=True)] for row in cells(results, columns)
    ]
    yield from aligned(rows, [place for place, column in enumerate(columns) if not column.right])


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> Iterator[str]:
    """Yield rows as lines of plain text, the columns of these places to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        parts = (
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield _GAP.join(parts).rstrip()


def shortened(text: str, width: int) -> str:
    """Return text of at most so many characters, with … for what was cut out."""
    if len(text) <= width:
        return text
    # In the middle: names of strategies often share a beginning, and the mark of a mistake is at the end.
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"
