"""What the page says, section by section, as plain values for the template."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from pytest_loraperf.page.axes import shortened
from pytest_loraperf.report.plan import fastest, fitting, smallest, usable
from pytest_loraperf.report.ranking import ranking
from pytest_loraperf.report.results import ComparisonRecord, Results, VerdictRecord
from pytest_loraperf.report.table import COLUMNS, NONE, cells, footnotes, with_something
from pytest_loraperf.units import format_duration, format_size
from pytest_loraperf.verdict.effect import MIN_GAIN, worst_layers

ORDER = ("FAIL", "INCONCLUSIVE", "PASS", "SKIPPED")
NAME = 120
"""Letters of a name that are shown; the rest is left out of its middle."""
WORDS = {"FAIL": "failed", "INCONCLUSIVE": "cannot tell", "PASS": "passed", "SKIPPED": "skipped"}
_CLAIMS = {"PASS": "holds here", "FAIL": "does not hold here", "INCONCLUSIVE": "cannot tell"}
_APART = ("strategy", "verdict", "steps", "s/generation", "interval")


@dataclass(frozen=True)
class Tile:
    """A figure at the top: what it is, its value, and what it is of."""

    title: str
    value: str
    note: str = ""
    status: str = ""


@dataclass(frozen=True)
class Row:
    """A strategy in the table."""

    name: str
    mistake: bool
    steps: str
    verdict: str
    time: str
    interval: str
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """The verdicts of one status."""

    status: str
    words: str
    verdicts: tuple[VerdictRecord, ...]


def facts(results: Results) -> Iterator[tuple[str, str]]:
    """Yield what was run, on what and with what; what the results do not tell is left out."""
    machine, request = results.machine, dict(results.request)
    device = f" ({machine.device})" if machine.device else ""
    found = {
        "Machine": f"{machine.name}{device}" if machine.name else "",
        "Driver": machine.driver or "",
        "Model": results.model,
        "Prompt": str(request.pop("prompt", "") or ""),
        "Request": ", ".join(
            f"{name} {value}" for name, value in request.items() if value not in (None, "", {}, [])
        ),
        "Adapters": ", ".join(
            dict.fromkeys(adapter for each in results.strategies.values() for adapter in each.adapters)
        ),
        "Software": ", ".join(
            filter(
                None,
                (
                    machine.torch and f"torch {machine.torch}",
                    machine.backend,
                    f"pytest-loraperf {results.plugin_version}",
                ),
            )
        ),
        "Measured": results.created,
        "Budget": _budget(results),
        "Memory": f"{machine.memory_kind} (no CUDA)" if machine.memory_kind not in ("", "VRAM") else "",
        "Command": results.command,
    }
    yield from ((name, text) for name, text in found.items() if text)


def _budget(results: Results) -> str:
    return "" if results.gpu_budget is None else f"{format_size(results.gpu_budget)} ({results.gpu_budget} bytes)"


def tiles(results: Results) -> Iterator[Tile]:
    """Yield the verdicts counted, and of the strategies that could be recommended the fastest and the smallest."""
    counted = [(f"{len(each.verdicts)} {each.words}", each.status) for each in judged(results)]
    if counted:
        (worst, status), *others = counted
        yield Tile("Verdicts", worst, ", ".join(text for text, _ in others), status)
    found = usable(results)
    if found:
        name = fastest(found)
        yield Tile("Fastest", format_duration(found[name].seconds), shortened(name, NAME))
        name = smallest(found)
        yield Tile("Smallest", format_size(found[name].need), shortened(name, NAME))
    if results.gpu_budget is not None:
        fits = fitting(found, results.gpu_budget)
        note = f"{len(fits)} of {len(found)} right strategies fit, set-up included"
        yield Tile("Budget", format_size(results.gpu_budget), note)


def strategy_rows(results: Results) -> tuple[list[str], list[Row]]:
    """Return the titles of the figures after the time, and a row for each strategy."""
    rest = [column for column in with_something(results) if column.title not in _APART]
    rest.sort(key=lambda column: column.title != "ratio")
    titles, *rows = cells(results, rest)
    steps, time, interval = (
        next(column.cell for column in COLUMNS if column.title == title) for title in _APART[2:]
    )
    return titles, [
        Row(
            name,
            bool(found.mistake),
            steps(results, name, found),
            results.verdict_of(name),
            time(results, name, found),
            interval(results, name, found) if found.latency else "",
            tuple(row),
        )
        for (name, found), row in zip(results.strategies.items(), rows, strict=True)
    ]


def table_notes(results: Results) -> list[str]:
    """Return what the columns of the table mean, the schemes, the mistakes and the errors."""
    return list(footnotes(results, [column.title for column in with_something(results)]))


def claims(results: Results) -> list[tuple[str, str, str, str]]:
    """Return each claim of the ranking: its status, what that means, the claim, and what was measured."""
    return [(str(each.status), _CLAIMS[each.status], str(each.claim), each.measured) for each in ranking(results)]


def judged(results: Results) -> list[Judged]:
    """Return all verdicts, those that failed first."""
    # A file of another version may know a status that this one does not; it is not to go unseen.
    statuses = dict.fromkeys((*ORDER, *(each.status for each in results.verdicts)))
    found = ((status, tuple(each for each in results.verdicts if each.status == status)) for status in statuses)
    return [Judged(status, WORDS.get(status, status), verdicts) for status, verdicts in found if verdicts]


def taken(results: Results) -> Iterator[tuple[str, str]]:
    """Yield the series of rounds: the arms with their medians, and how they were taken, with what went wrong."""
    for each in results.comparisons:
        rounds = max((len(times) for times in each.samples_s.values()), default=0)
        alone = len(each.arms) == 1
        how = f"{rounds} rounds" if each.interleaved or alone else f"{rounds} blocks, in turns"
        dropped = [f"{len(each.dropped)} of them throttled and left out"] if each.dropped else []
        errors = [f"{arm} raised {error}" for arm, error in each.errors.items()]
        yield " · ".join(_medians(each)), "; ".join([how, *dropped, *errors])


def _medians(each: ComparisonRecord) -> Iterator[str]:
    for arm in each.arms:
        times = [time for time in each.samples_s.get(arm, ()) if time is not None]
        yield f"{shortened(arm, NAME)} {format_duration(median(times)) if times else NONE}"


def few_layers(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Return of each strategy that lost the LoRA somewhere a line for the layers that have least of it."""
    known = {name: each.lora.gains for name, each in results.strategies.items() if each.lora}
    gains = {
        name: {layer: math.nan if gain is None else gain for layer, gain in each.items()}
        for name, each in known.items()
    }
    lost = {name: each for name, each in gains.items() if any(not gain >= MIN_GAIN for gain in each.values())}
    return [(name, worst_layers(each)) for name, each in lost.items()]
