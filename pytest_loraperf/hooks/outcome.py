"""What a run comes to: its results, whichever process measured them, and the files that are written of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
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
        from pytest_loraperf.run.gathering import gather  # noqa: PLC0415 - imports torch

        return gather(run)
    found = workers.results(list(run.strategies))
    notes = dict.fromkeys((*found.notes, *run.notes))
    return replace(found, command=run.command, notes=tuple(notes))


def keep(run: Session, workers: Controller | None) -> None:
    """Write what was measured so far beside the results file, where there is one and more than the last time."""
    if run.journal is not None:
        state = run.progress if workers is None else workers.count
        run.journal.keep(state, lambda: results_of(run, workers))


def finish(
    run: Session, workers: Controller | None, *, github: bool = False, whole: bool = False
) -> Iterator[str]:
    """Write what is asked for: results, baseline, the summary of GitHub's step; yield a line for each failure.

    What there is to say of a baseline goes to the notes of the run, and so does a summary that cannot be written:
    it is no part of what was asked for. ``whole`` is whether all tests were asked for.
    """
    yield from workers.lost() if workers else ()
    for write in (_write_results, _write_benchmarks, _write_page, partial(_baseline, whole=whole)):
        try:
            write(run, workers)
        except LoraperfError as error:
            yield f"{error}{_kept(run) if write is _write_results else ''}"
    if github:
        note = _append_step_summary(run, workers)
        run.notes |= {note: None} if note else {}


def notes_of(run: Session, workers: Controller | None) -> tuple[str, ...]:
    """Return the notes of the run, and of its workers."""
    try:
        return results_of(run, workers).notes if _used(run, workers) else tuple(run.notes)
    except LoraperfError as error:
        return (*run.notes, f"error: {error}")


def _used(run: Session, workers: Controller | None) -> bool:
    """Whether anything was measured or judged; collecting results imports torch."""
    judged = any(record.verdicts for record in run.records.values())
    return bool(run.benches or run.measured or judged or (workers and workers.used))


def interrupted(run: Session) -> str:
    """Say that an interrupt came while the results were written."""
    return f"interrupted while the results were written; run it again{_kept(run)}"


def _kept(run: Session) -> str:
    if run.journal is None or not run.journal.path.exists():
        return ""
    return f"; what was measured until then is in {run.journal.path}"


def summary_lines(run: Session, workers: Controller | None, width: int) -> list[str]:
    """Return the summary: the table and the notes, or the notes alone where nothing was measured."""
    from pytest_loraperf.report.terminal import notes, summary  # noqa: PLC0415 - only where there is something

    if not (run.benches or run.measured or run.forecasts or (workers and workers.used)):
        return list(notes(run.notes, width))
    try:
        return list(summary(results_of(run, workers), width))
    except LoraperfError as error:
        return list(notes((*run.notes, f"error: {error}"), width))


def _write_results(run: Session, workers: Controller | None) -> None:
    if run.settings.json is not None:
        from pytest_loraperf.report.results import write_results  # noqa: PLC0415 - only where there are any

        write_results(run.settings.json, results_of(run, workers))
        if run.journal is not None:
            run.journal.remove()


def _write_benchmarks(run: Session, workers: Controller | None) -> None:
    if run.settings.benchmark_json is not None:
        from pytest_loraperf.report.benchmark_json import write_benchmarks  # noqa: PLC0415 - only where asked for

        write_benchmarks(run.settings.benchmark_json, results_of(run, workers))


def _write_page(run: Session, workers: Controller | None) -> None:
    if run.settings.html is not None:
        from pytest_loraperf.page.write import write_page  # noqa: PLC0415 - imports jinja2 and vl_convert

        write_page(run.settings.html, results_of(run, workers))


def _append_step_summary(run: Session, workers: Controller | None) -> str | None:
    """Append to the summary of GitHub's step; return a note where it cannot be done."""
    if not _used(run, workers):
        return None
    from pytest_loraperf.report.step_summary import append_summary, run_markdown  # noqa: PLC0415 - only on GitHub

    path = os.environ.get("GITHUB_STEP_SUMMARY", "")
    if not path:
        return (
            "warning: GITHUB_STEP_SUMMARY is not set; no summary is written (--loraperf-github=off asks for none)"
        )
    try:
        append_summary(Path(path), run_markdown(results_of(run, workers)))
    except (OSError, LoraperfError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return f"warning: GITHUB_STEP_SUMMARY={path}: cannot be written: {why}; the table is in the log alone"
    return None


def _baseline(run: Session, workers: Controller | None, *, whole: bool) -> None:
    stored = run.stored
    if stored is None:
        return
    if workers is not None:
        stored.measured |= workers.measured()
        stored.latents.taken |= workers.latents()
        whole = whole and not workers.partial
    if stored.update:
        run.notes |= dict.fromkeys(stored.finish(results_of(run, workers).verdicts))
    if whole and not stored.partial:
        run.notes |= dict.fromkeys(stored.unmeasured())
