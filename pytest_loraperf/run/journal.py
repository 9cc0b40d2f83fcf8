"""What was measured so far, in a file beside the results: it is there when a run ends before it writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results

SUFFIX = ".partial"
UNFINISHED = "warning: these results are of a run that was still going on, or that ended before it wrote them all"


@dataclass
class Journal:
    """The file of one run: results as they are so far, written whole after each test that measured something.

    So the file can be read whenever the run ends. It is removed once the results themselves are written. ``note``
    takes a line for the summary.
    """

    path: Path
    note: Callable[[str], None]
    known: object = None

    def keep(self, state: object, results: Callable[[], Results]) -> None:
        """Write the results so far, unless the ``state`` that they come of is that of the last time, or None.

        A file that cannot be written is noted, and costs no test its verdict.
        """
        known, self.known = self.known, state
        if state is None or state == known:
            return
        from pytest_loraperf.report.results import write_results  # noqa: PLC0415 - only where something was measured

        try:
            found = results()
            write_results(self.path, replace(found, notes=(*found.notes, UNFINISHED)), compact=True)
        except LoraperfError as error:
            self.note(f"warning: {error}; until the end of this run its results are in memory alone")

    def remove(self) -> None:
        """Remove it: the results themselves are written."""
        self.path.unlink(missing_ok=True)


def open_journal(results: Path, note: Callable[[str], None]) -> Journal:
    """Return the journal of a run that writes these results; one that an earlier run left is moved aside.

    Raises:
        LoraperfError: it cannot be moved.
    """
    path = results.with_name(results.name + SUFFIX)
    if path.exists():
        aside = next(free for number in count(1) if not (free := path.with_name(f"{path.name}-{number}")).exists())
        try:
            path.rename(aside)
        except OSError as error:
            raise LoraperfError(
                f"{path}, which a run that ended early left, cannot be moved aside: {error.strerror}; move it"
            ) from error
        note(
            f"warning: an earlier run ended before it wrote {results.name}; what it had measured is in {aside}, "
            "a results file as any other; remove it when it is not needed"
        )
    return Journal(path, note)
