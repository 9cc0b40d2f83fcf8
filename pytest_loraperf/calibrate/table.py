"""The table of a calibration: every tally for the terminal, a row for each noise and limit in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from pytest_loraperf.calibrate.calibration import Calibration
from pytest_loraperf.calibrate.recording import label
from pytest_loraperf.calibrate.replay import Tally
from pytest_loraperf.report.table import NONE, aligned, one_line
from pytest_loraperf.units import four_digits

TITLES = (
    "noise",
    "limit",
    "slower",
    "false alarms",
    "power",
    "passed",
    "cannot tell",
    "rounds",
    "seconds",
)


def lines(calibration: Calibration) -> Iterator[str]:
    """Yield the table for a terminal, what its columns mean, and the findings."""
    yield from aligned([TITLES, *map(_cells, calibration.tallies)])
    yield from notes(calibration)
    yield "false alarms: FAIL where it is slower by at most the limit; power: FAIL where it is slower by more"
    yield from calibration.findings()


def markdown_lines(calibration: Calibration) -> Iterator[str]:
    """Yield a Markdown table and notes: a row for each noise and limit, the share of FAIL for each slowdown."""
    slowdowns = list(dict.fromkeys(tally.slowdown for tally in calibration.tallies))
    titles = ["noise", "limit", *(f"FAIL at {label(each)}" for each in slowdowns), "rounds (A/A)", "seconds (A/A)"]
    groups = groupby(calibration.tallies, lambda tally: (tally.source, tally.limit))
    yield from markdown([titles, *(_group_cells(list(tallies)) for _, tallies in groups)])
    yield ""
    for note in notes(calibration):
        yield f"- {note}"


def notes(calibration: Calibration) -> Iterator[str]:
    """Yield how many replays there were, of what, and what the medians are of."""
    replays = calibration.tallies[0].replays
    yield f"{replays} replays a row and slowdown, of at most {calibration.max_rounds} rounds"
    if calibration.recorded:
        yield one_line(f"recorded: {calibration.recorded}")
    yield "rounds, seconds (both arms): medians to a PASS or FAIL"


def markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as GitHub reads them, aligned in the same way; the first is the titles."""
    titles, *body = rows
    rule = ["---", *["---:"] * (len(titles) - 1)]
    for row in (titles, rule, *body):
        yield f"| {' | '.join(row)} |"


def percent(share: float | None) -> str:
    """Show a share: ``0.4 %`` of 0.004, a dash for None."""
    return NONE if share is None else f"{100 * share:.1f} %"


def number(value: float | None, *, digits: bool = False) -> str:
    """Show a median, with four digits where it is no count, and a dash for None."""
    if value is None:
        return NONE
    return four_digits(value) if digits else f"{value:g}"


def _cells(tally: Tally) -> list[str]:
    return [
        tally.source,
        label(tally.limit),
        label(tally.slowdown),
        percent(tally.false_alarms),
        percent(tally.power),
        percent(tally.passed / tally.replays),
        percent(tally.inconclusive / tally.replays),
        number(tally.rounds),
        number(tally.seconds, digits=True),
    ]


def _group_cells(tallies: Sequence[Tally]) -> list[str]:
    """Return the cells of one noise and limit; the medians are those of A/A, the first."""
    first = tallies[0]
    shares = [percent(tally.failed / tally.replays) for tally in tallies]
    return [first.source, label(first.limit), *shares, number(first.rounds), number(first.seconds, digits=True)]
