"""Where a call comes from: the first frame outside of the libraries, and the test or script that led there."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache
from types import FrameType

from pytest_loraperf.order.events import Place

BETWEEN = frozenset(
    {
        *("accelerate", "bitsandbytes", "diffsynth", "diffusers", "optimum", "peft", "torch", "torchao"),
        *("transformers", "wrapt", "pytest_loraperf", "contextlib", "functools", "importlib"),
    }
)
"""Packages whose frames are no place of the user's."""
RUNNERS = frozenset({"_pytest", "pluggy"})


@cache
def _package(module: str) -> str:
    return module.partition(".")[0]


@dataclass
class Sites:
    """Reads the stack; paths are shown relative to ``root`` where they are below it."""

    root: str
    _shown: dict[str, str] = field(default_factory=dict)

    def here(self) -> tuple[Place, Place | None]:
        """Return the line of the operation, and that of the test or script that called the helper it stands in."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.stack reads sources: milliseconds
        first = last = None
        while frame is not None:
            package = _package(frame.f_globals.get("__name__", ""))
            if package in RUNNERS and first is not None:
                break
            if package not in BETWEEN:
                first, last = first or frame, frame
            frame = frame.f_back
        if first is None or last is None:
            return Place("<unknown>", 0), None
        return self._place(first), None if last is first else self._place(last)

    def path(self, place: Place) -> str:
        """Return where the file of a place is."""
        return os.path.join(self.root, place.path)  # noqa: PTH118 - pathlib takes ten times as long

    def _place(self, frame: FrameType) -> Place:
        file = frame.f_code.co_filename
        shown = self._shown.get(file)
        if shown is None:
            inside = file.startswith(self.root + os.sep)
            shown = self._shown[file] = file[len(self.root) + 1 :] if inside else file
        return Place(shown, frame.f_lineno)
