"""Progress of a command: a bar with what is under way, on a terminal; elsewhere nothing."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """A bar of so many parts of the work, there from the first time that something is told until it is closed.

    tqdm draws it, which comes with every library that pipelines come from.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None

    def tell(self, line: str) -> None:
        """Show what is under way."""
        bar = self._there()
        if bar is not None:
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
