"""Several results files in the order in which they were made: each strategy's time and VRAM, and what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_loraperf.compare.compare import (
    Compared,
    judge_strategy,
    read_positive,
    software_of,
    strategy_differences,
)
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import Latency, Results
from pytest_loraperf.report.table import NONE, aligned, one_line
from pytest_loraperf.units import format_size, four_digits

MAX_SLOWDOWN = 0.05
TITLES = ("strategy", "run", "s/generation", "interval", "VRAM runtime", "change", "interval", "verdict")
_LEFT_ALIGNED = (0, 1, len(TITLES) - 1)


@dataclass(frozen=True)
class Run:
    """One results file: what it is called, when it was made, and what it holds."""

    name: str
    created: datetime
    results: Results


@dataclass(frozen=True)
class Change:
    """A strategy's time against the run before: the ratio with its interval, and the verdict on it.

    ``status`` is that of ``loraperf compare``, WIN where it is faster by more than the margin.
    """

    since: str
    ratio: float
    ci: tuple[float, float]
    status: str
    message: str


@dataclass(frozen=True)
class Entry:
    """A strategy in one run; ``change`` is None where there is nothing before it that it can be compared with.

    ``note`` says why it cannot, or which software changed too.
    """

    run: str
    created: str
    plugin_version: str
    latency: Latency | None = None
    vram_runtime_peak: int | None = None
    change: Change | None = None
    note: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Group:
    """The runs on one kind of machine, of one model and request; the software may differ from run to run."""

    machine: str
    model: str
    request: Mapping[str, Any]
    strategies: Mapping[str, tuple[Entry, ...]]
    runs: tuple[Run, ...] = field(repr=False)

    @property
    def title(self) -> str:
        """One line: the model, the machine and what ran there."""
        newest = self.runs[-1].results
        machine = newest.machine
        driver = f", driver {machine.driver}" if machine.driver else ""
        wanted = {name: value for name, value in newest.request.items() if value not in (None, "", {}, [])}
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        place = f"{newest.model} on {machine.name}{driver}, torch {machine.torch}, {machine.backend}"
        return one_line(f"{place}; {asked}" if asked else place)

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the changes, each said once."""
        entries = (entry for each in self.strategies.values() for entry in each)
        return tuple(dict.fromkeys(one_line(f"{entry.run}: {entry.note}") for entry in entries if entry.note))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read results files and return them in the order of their making; what is given twice counts once.

    Raises:
        LoraperfError: a file is no results file, or does not say when it was made.
    """
    runs: list[Run] = []
    for path in paths:
        results = read_positive(path)
        if all(results != run.results for run in runs):
            runs.append(Run(path.name, _time(path, results.created), results))
    return sorted(runs, key=lambda run: run.created)


def _time(path: Path, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise LoraperfError(
            f"results {path}: results.created is {text[:40]!r}, a time such as 2026-11-24T08:45:53+00:00 is "
            "expected; measure again to write it anew"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def history(runs: Sequence[Run], max_slowdown: float = MAX_SLOWDOWN) -> list[Group]:
    """Return the runs by machine, model and request, each group in the order of the runs.

    ``max_slowdown`` is by what fraction a strategy may be slower than in the run before.
    """
    grouped: list[list[Run]] = []
    for run in runs:
        same = next((found for found in grouped if _subject(found[0]) == _subject(run)), None)
        if same is None:
            grouped.append([run])
        else:
            same.append(run)
    return [Group(*_subject(found[0]), _strategies(found, max_slowdown), tuple(found)) for found in grouped]


def _subject(run: Run) -> tuple[str, str, Mapping[str, Any]]:
    return run.results.machine.name, run.results.model, run.results.request


def _strategies(runs: Sequence[Run], max_slowdown: float) -> dict[str, tuple[Entry, ...]]:
    names = dict.fromkeys(name for run in runs for name in run.results.strategies)
    return {name: tuple(_entries(name, runs, 1 + max_slowdown)) for name in names}


def _entries(name: str, runs: Sequence[Run], limit: float) -> Iterator[Entry]:
    before: Run | None = None
    for run in runs:
        found = run.results.strategies.get(name)
        if found is None:
            continue
        change, note = _change(name, before, run, limit)
        yield Entry(
            run.name,
            run.results.created,
            run.results.plugin_version,
            found.latency,
            found.vram.runtime_peak,
            change,
            note,
            found.error,
        )
        if found.samples_s:
            before = run


def _change(name: str, before: Run | None, run: Run, limit: float) -> tuple[Change | None, str]:
    now = run.results.strategies[name]
    if before is None or not now.samples_s or now.error:
        return None, ""
    earlier = before.results.strategies[name]
    differences = ", ".join(strategy_differences(name, earlier, now))
    if differences:
        return None, f"not comparable with {before.name}: {differences}"
    judged = judge_strategy(name, earlier, now, limit)
    found = judged.decision
    if found is None:
        return None, judged.verdict.message
    change = Change(before.name, found.ratio, found.interval, _status(judged), judged.verdict.message)
    return change, _changed_software(before, run)


def _changed_software(before: Run, run: Run) -> str:
    old, new = (software_of(each.results.machine) for each in (before, run))
    changed = [f"{what} {old[what] or 'none'} to {new[what] or 'none'}" for what in new if old[what] != new[what]]
    return f"changed since {before.name}: {', '.join(changed)}" if changed else ""


def _status(judged: Compared) -> str:
    return "WIN" if judged.won else str(judged.verdict.status)


def history_lines(groups: Sequence[Group]) -> Iterator[str]:
    """Yield a table for each group; each is one line."""
    for number, group in enumerate(groups):
        if number:
            yield ""
        yield group.title
        yield from aligned([TITLES, *history_cells(group)], _LEFT_ALIGNED)
        yield from group.notes


def history_cells(group: Group) -> list[tuple[str, ...]]:
    """Return a row for each strategy in each run; a strategy's name is in the first of its rows."""
    rows: list[tuple[str, ...]] = []
    for name, entries in group.strategies.items():
        for number, entry in enumerate(entries):
            change = entry.change
            rows.append(
                (
                    "" if number else one_line(name),
                    shown_time(entry.created),
                    "error" if entry.error else four_digits(entry.latency.median_s) if entry.latency else NONE,
                    "[{}–{}]".format(*map(four_digits, entry.latency.ci_s)) if entry.latency else NONE,
                    NONE if entry.vram_runtime_peak is None else format_size(entry.vram_runtime_peak),
                    f"{change.ratio:.3f}×" if change else NONE,
                    "{:.3f}–{:.3f}".format(*change.ci) if change else NONE,
                    change.status if change else NONE,
                )
            )
    return rows


def shown_time(created: str) -> str:
    """Return a time of a results file to the minute, as it stands there."""
    return one_line(created).replace("T", " ")[:16]
