"""Progress of a command: what is under way, in place on a terminal; elsewhere a line now and then.

Where a job runs for its whole allowed time, the last of these lines says in what.
"""

from __future__ import annotations

import contextlib
import sys
from threading import Event, Thread
from typing import Any

PAUSE = 10.0
"""Seconds from one line to the next where there is no terminal: a short run has none."""


class Line:
    """The latest that is under way, in one line."""

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause = pause
        self._latest = self._shown = ""
        self._over: Event | None = None

    def tell(self, line: str) -> None:
        """Show what is under way; an empty line ends it, and takes the last one off a terminal."""
        self._latest = line
        if _is_terminal():
            _show(f"\r\x1b[K{line and f'loraperf: {line}'}")
        elif line and self._over is None:
            self._over = Event()
            Thread(target=self._report, args=(self._over,), daemon=True).start()
        elif not line and self._over is not None:
            self._over.set()
            self._over = None

    def _report(self, over: Event) -> None:
        """Show it once it has been under way for a while: what hangs tells nothing any more."""
        seconds = 0.0
        while not over.wait(self._pause):
            seconds += self._pause
            if self._latest != self._shown:
                self._shown = self._latest
                _show(f"loraperf: after {seconds:.0f} s: {self._shown}\n")


class Bar:
    """A bar of so many parts of the work, there from the first time that something is told until it is closed.

    tqdm draws it, which comes with every library that pipelines come from.
    """

    def __init__(self, total: int, pause: float = PAUSE) -> None:
        self._total = total
        self._bar: Any = None
        self._elsewhere = Line(pause)

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
        if self._bar is None:
            self._elsewhere.tell("")
        else:
            self._bar.close()
            self._bar = None

    def _there(self) -> Any:
        if self._bar is None and _is_terminal():
            from tqdm import tqdm  # noqa: PLC0415 - only where somebody looks

            self._bar = tqdm(total=self._total, unit="part", desc="loraperf", leave=False, dynamic_ncols=True)
        return self._bar


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _show(text: str) -> None:
    """Show it; whoever read the lines may be gone, which is nothing to the measurement."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()
