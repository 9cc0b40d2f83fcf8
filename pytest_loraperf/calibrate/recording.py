"""A recording: rounds of one strategy beside itself made slower by known amounts, and its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_loraperf.calibrate.files import read_file, write_file
from pytest_loraperf.errors import LoraperfError

KIND = "recording"


def label(slowdown: float) -> str:
    """Return the name of the arm that is slower by this share: ``+5%`` of 0.05."""
    return f"+{100 * slowdown:g}%"


REFERENCE = label(0)
AGAIN = f"{REFERENCE} again"


@dataclass(frozen=True)
class Recording:
    """Seconds of each arm, round by round, and where they were taken.

    ``what`` says it in words, ``machine`` names the device. ``arms`` holds ``+0%``, the reference, ``+0% again``,
    the same once more, and arms slower by a known share, such as ``+5%``. ``order`` names the arms of each round
    as they took their turns.

    Raises:
        LoraperfError: the reference or its second arm is not there, rounds differ, or a time is not positive.
    """

    what: str
    machine: str
    torch: str
    model: str
    request: Mapping[str, Any]
    strategy: str
    arms: Mapping[str, tuple[float, ...]]
    order: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for name in (REFERENCE, AGAIN):
            if not self.arms.get(name):
                raise LoraperfError(f"arm {name!r} has no rounds; record it again")
        for name, times in self.arms.items():
            if len(times) != self.rounds:
                raise LoraperfError(
                    f"arm {name!r} has {len(times)} rounds, {REFERENCE!r} has {self.rounds}; record it again"
                )
            bad = next((time for time in times if not (math.isfinite(time) and time > 0)), None)
            if bad is not None:
                raise LoraperfError(f"arm {name!r} holds {bad!r}, no positive number of seconds; record it again")
        if len(self.order) != self.rounds or any(sorted(turns) != sorted(self.arms) for turns in self.order):
            raise LoraperfError("order does not name each arm once in each round; record it again")

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return len(self.arms[REFERENCE])


def write_recording(path: Path, recording: Recording) -> None:
    """Write the file whole or not at all.

    Raises:
        LoraperfError: it cannot be written.
    """
    write_file(path, KIND, recording)


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        LoraperfError: it is missing, truncated, no JSON, of another schema or kind, or its rounds do not fit.
    """
    found: Recording = read_file(path, KIND, Recording)
    return found
