"""Progress of a command: what is under way, in place on a terminal; elsewhere a line now and then.

Where a job runs for its whole allowed time, the last of these lines says in what.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

PAUSE = 10.0
"""Seconds without a line, where there is no terminal: a short run has none."""


class Line:
    """The latest that is under way, in one line."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._start = self._last = clock()

    def tell(self, line: str) -> None:
        """Show what is under way; an empty line takes the last one off a terminal."""
        now = self._clock()
        if sys.stderr.isatty():
            _show(f"\r\x1b[K{line and f'loraperf: {line}'}")
        elif line and now - self._last >= PAUSE:
            _show(f"loraperf: after {now - self._start:.0f} s: {line}\n")
            self._last = now


class Bar:
    """A bar of so many parts of the work, there from the first time that something is told until it is closed.

    tqdm draws it, which comes with every library that pipelines come from.
    """

    def __init__(self, total: int, clock: Callable[[], float] = perf_counter) -> None:
        self._total = total
        self._bar: Any = None
        self._elsewhere = Line(clock)

    def tell(self, line: str) -> None:
        """Show what is under way."""
        bar = self._there()
        if bar is None:
            self._elsewhere.tell(line)
        else:
            bar.set_postfix_str(line)

    def done(self) -> None:
        """Move on by one part."""
        bar = self._there()
        if bar is not None:
            bar.update()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _there(self) -> Any:
        if self._bar is None and sys.stderr.isatty():
            from tqdm import tqdm  # noqa: PLC0415 - only where somebody looks

            self._bar = tqdm(total=self._total, unit="part", desc="loraperf", leave=False, dynamic_ncols=True)
        return self._bar


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
