"""What a calibration found, its file, and whether the verdicts keep their promise there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_loraperf.calibrate.files import read_file, write_file
from pytest_loraperf.calibrate.recording import label
from pytest_loraperf.calibrate.replay import Tally
from pytest_loraperf.verdict.decision import ALPHA

KIND = "calibration"
_DEVIATIONS = 3


@dataclass(frozen=True)
class Calibration:
    """The tallies, and of what: ``recorded`` says what was recorded, None where all noise is simulated."""

    plugin_version: str
    created: str
    command: str
    max_rounds: int
    recorded: str | None
    tallies: tuple[Tally, ...]

    def findings(self) -> Iterator[str]:
        """Yield a line wherever wrong verdicts are more than is promised, by more than chance explains."""
        for tally in self.tallies:
            within = tally.slowdown <= tally.limit
            share = (tally.failed if within else tally.passed) / tally.replays
            chance = _DEVIATIONS * math.sqrt(ALPHA * (1 - ALPHA) / tally.replays)
            if share > ALPHA + chance:
                yield (
                    f"{tally.source} noise, {label(tally.slowdown)} against a limit of {label(tally.limit)}: "
                    f"{100 * share:.1f} % of {tally.replays} replays {'FAIL' if within else 'PASS'}, wrongly; "
                    f"at most {100 * ALPHA:g} % are promised: measure on a quieter machine"
                )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the file whole or not at all.

    Raises:
        LoraperfError: it cannot be written.
    """
    write_file(path, KIND, calibration)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        LoraperfError: it is missing, truncated, no JSON, or of another schema or kind.
    """
    found: Calibration = read_file(path, KIND, Calibration)
    return found
