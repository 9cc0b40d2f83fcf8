"""Verdicts where their assumptions do not hold: ``python benchmarks/assumptions.py [--replays N] [--json FILE]``.

Each case breaks one assumption of ``pytest_loraperf/verdict/decision.py``: that rounds resemble each other no more
than a few of them show, or that the noise of both arms is alike and the limit all that tells them apart. Limits in
seconds are of one arm alone, also of one recorded on an H100: windows of successive rounds, held to the median of
the whole recording. All arms are equal but for the slowdown; where their noise differs, in their medians.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pytest_loraperf.calibrate.files import write_file
from pytest_loraperf.calibrate.noise import Pair, Times
from pytest_loraperf.calibrate.recording import REFERENCE, read_recording
from pytest_loraperf.calibrate.replay import Source, Tally, replay, sequential, simulated
from pytest_loraperf.calibrate.table import markdown, percent
from pytest_loraperf.errors import LoraperfError

KIND = "assumptions"
REPLAYS = 2000
LIMIT = 0.05
SLOWDOWNS = (0.0, LIMIT, 1.2 * (1 + LIMIT) - 1)
"""Far within the limit, at it, and a fifth beyond."""
ROUNDS = (30, 150)
NOISE = 0.05
MODE, MODE_ROUNDS = 0.1, 10
OUTLIER, OUTLIERS = 3.0, 0.05
SKEW = 0.1
WARMING, WARMING_ROUNDS = 0.3, 3
DRIFT = 0.05
RECORDINGS = tuple(Path(__file__).parent / "h100" / f"recording-{name}.json" for name in ("full", "short"))


@dataclass(frozen=True)
class Row:
    """One case, and how its replays ended: a tally for each number of rounds and slowdown."""

    case: str
    tallies: tuple[tuple[Tally, ...], ...]


@dataclass(frozen=True)
class Assumptions:
    """All rows."""

    rows: tuple[Row, ...]


def resembling(correlation: float, rng: np.random.Generator, rounds: int) -> Pair:
    """Let each arm's times resemble its own of the round before: a first-order autoregressive series."""
    return _times(_series(correlation, rng, (2, rounds)))


def lasting_modes(rng: np.random.Generator, rounds: int) -> Pair:
    """Let each arm fall into a mode that is 10 % slower, and out of it, each after 10 rounds on average."""
    turns = rng.random((2, rounds)) < 1 / MODE_ROUNDS
    slow = (turns.cumsum(axis=1) + rng.integers(2, size=(2, 1))) % 2
    return _times(MODE * slow + rng.normal(0, NOISE / 5, (2, rounds)))


def outliers_of_one(rng: np.random.Generator, rounds: int) -> Pair:
    """Let one arm, and it alone, take three times as long in 5 % of the rounds."""
    logs = rng.normal(0, NOISE, (2, rounds))
    logs[0] += np.log(OUTLIER) * (rng.random(rounds) < OUTLIERS)
    return _times(logs)


def skew_of_one(rng: np.random.Generator, rounds: int) -> Pair:
    """Let one arm have slow times of all sizes, exponential, and the other hardly any; the medians are equal."""
    logs = rng.normal(0, NOISE / 5, (2, rounds))
    logs[0] += rng.exponential(SKEW, rounds) - SKEW * np.log(2)
    return _times(logs)


def warming_of_one(rng: np.random.Generator, rounds: int) -> Pair:
    """Let one arm be 30 % slower at first, which fades over three rounds."""
    logs = rng.normal(0, NOISE, (2, rounds))
    logs[0] += WARMING * np.exp(-np.arange(rounds) / WARMING_ROUNDS)
    return _times(logs)


def drift_of_one(rng: np.random.Generator, rounds: int) -> Pair:
    """Let one arm get slower, or faster, by 5 % over the rounds; in their middle both are equal."""
    logs = rng.normal(0, NOISE, (2, rounds))
    logs[0] += rng.choice([-1, 1]) * np.linspace(-DRIFT / 2, DRIFT / 2, rounds)
    return _times(logs)


def held_to_seconds(correlation: float, rng: np.random.Generator, rounds: int) -> Pair:
    """Hold one arm, whose times resemble those before, to the limit of its median."""
    samples, reference = _times(np.stack([_series(correlation, rng, (rounds,)), np.zeros(rounds)]))
    return samples, reference


def _series(correlation: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Times:
    logs = rng.normal(0, NOISE, shape)
    own = np.sqrt(1 - correlation**2)
    for turn in range(1, shape[-1]):
        logs[..., turn] = correlation * logs[..., turn - 1] + own * logs[..., turn]
    return logs


def _times(logs: Times) -> Pair:
    samples, reference = np.exp(logs)
    return samples, reference


def recorded_alone(path: Path) -> Source:
    """Return windows of one recorded arm, beside the median of the whole recording.

    Raises:
        LoraperfError: it is no recording.
    """
    times = np.array(read_recording(path).arms[REFERENCE])

    def draw(rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = True) -> Pair:  # noqa: ARG001
        window = (rng.integers(len(times)) + np.arange(rounds)) % len(times)
        return times[window] * (1 + slowdown), np.full(rounds, np.median(times))

    return Source(f"seconds: recorded, {path.stem}", draw)


def sources() -> list[Source]:
    """Return all cases."""
    return [
        *(simulated(f"rounds resemble: {share:g}", partial(resembling, share)) for share in (0.3, 0.5, 0.9)),
        simulated("modes that last", lasting_modes),
        simulated("one arm: outliers", outliers_of_one),
        simulated("one arm: skewed", skew_of_one),
        simulated("one arm: warms up", warming_of_one),
        simulated("one arm: drifts", drift_of_one),
        *(simulated(f"seconds: resemble {share:g}", partial(held_to_seconds, share)) for share in (0, 0.4, 0.7)),
        *map(recorded_alone, RECORDINGS),
    ]


def count(source: Source, replays: int) -> Row:
    """Judge draws of a source."""
    return Row(
        source.name,
        tuple(
            tuple(
                replay(source, slowdown, LIMIT, rule=sequential(rounds), rounds=rounds, replays=replays)
                for slowdown in SLOWDOWNS
            )
            for rounds in ROUNDS
        ),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Return the rows as one Markdown table."""
    titles = ["case"]
    for rounds in ROUNDS:
        titles += [f"FAIL at +0%, {rounds} rounds", "FAIL at the limit", "PASS beyond"]
    return list(markdown([titles, *map(_cells, rows)]))


def _cells(row: Row) -> list[str]:
    shares: list[str] = []
    for equal, at, beyond in row.tallies:
        shares += [percent(each / equal.replays) for each in (equal.failed, at.failed, beyond.passed)]
    return [row.case, *shares]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(description="verdicts where their assumptions do not hold")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to this file")
    parser.add_argument("--replays", type=int, default=REPLAYS, metavar="N", help="draws of each case")
    given = parser.parse_args(arguments)
    if given.replays < 1:
        parser.error(f"--replays {given.replays}: a positive whole number is allowed")
    try:
        rows = tuple(count(source, given.replays) for source in sources())
        print("\n".join(table(rows)))
        if given.json is not None:
            write_file(given.json, KIND, Assumptions(rows))
    except LoraperfError as error:
        print(f"assumptions: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
