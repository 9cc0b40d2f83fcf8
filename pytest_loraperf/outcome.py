"""What a run comes to: its results, whichever process measured them, and the files that are written of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results
    from pytest_loraperf.session import Session
    from pytest_loraperf.xdist import Controller


def results_of(run: Session, workers: Controller | None) -> Results:
    """Return what this process measured, or what its workers did.

    Raises:
        LoraperfError: what a worker sent cannot be read.
    """
    if workers is None or not workers.used:
        from pytest_loraperf.gathering import gather  # noqa: PLC0415 - imports torch

        return gather(run)
    found = workers.results(list(run.strategies))
    notes = dict.fromkeys((*found.notes, *run.notes))
    return replace(found, command=run.command, notes=tuple(notes))


def finish(run: Session, workers: Controller | None) -> Iterator[str]:
    """Write the results and the baseline where they are asked for; yield a line for each thing that failed.

    What the update of a baseline says goes to the notes of the run.
    """
    yield from workers.lost() if workers else ()
    for write in (_write_results, _update_baseline):
        try:
            write(run, workers)
        except LoraperfError as error:
            yield str(error)


def summary_lines(run: Session, workers: Controller | None, width: int) -> list[str]:
    """Return the summary: the table and the notes, or the notes alone where nothing was measured."""
    from pytest_loraperf.report.terminal import notes, summary  # noqa: PLC0415 - only where there is something

    if not (run.benches or run.measured or (workers and workers.used)):
        return list(notes(run.notes, width))
    try:
        return list(summary(results_of(run, workers), width))
    except LoraperfError as error:
        return list(notes((*run.notes, f"error: {error}"), width))


def _write_results(run: Session, workers: Controller | None) -> None:
    if run.settings.json is not None:
        from pytest_loraperf.report.results import write_results  # noqa: PLC0415 - only where there are any

        write_results(run.settings.json, results_of(run, workers))


def _update_baseline(run: Session, workers: Controller | None) -> None:
    if run.stored is None or not run.stored.update:
        return
    if workers is not None:
        run.stored.measured |= workers.measured()
    run.notes |= dict.fromkeys(run.stored.finish(results_of(run, workers).verdicts))
