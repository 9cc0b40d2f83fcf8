"""Peers' rules and ours on the same recorded samples: ``python benchmarks/peers.py RECORDING... [--json FILE]``.

A RECORDING is what ``loraperf calibrate --record`` wrote. Each rule sees windows of it: as many successive rounds
as it takes, from random starts. The rules, as their sources have them:

- **pytest-benchmark** 5.3.1, ``--benchmark-compare-fail=median:5%``. ``pytest_benchmark/utils.py``,
  ``PercentageRegressionCheck``: fails when ``current / compared * 100 - 100 > 5`` of the two medians. How many
  samples there are depends on the call; 5 is its default for slow ones (``--benchmark-min-rounds``).
- **pytest-torch** 1.1.1, ``perf_baseline``. ``pytest_torch/perf.py``, ``check_perf`` and ``compare_perf``: fails
  when ``new > baseline * (1 + latency_tolerance) + latency_slack_ms``, medians of ``iters=20`` calls, the slack
  0.05 ms, the tolerance 0.25 by default; here that and 0.05. The stored baseline is rounded to 0.1 us.
- **pytest-torch** 1.1.1, ``BenchmarkSuite``. ``pytest_torch/benchmark.py``: the same comparison of the least of
  three such medians (``rounds = 3``).
- **pytest-loraperf**: ``pytest_loraperf/verdict/decision.py``, which stops as soon as it can tell. Within a limit
  of 5 % a slowdown of 5 % must not fail; the limit of 2 % shows what is seen of it.

Peers compare with a stored baseline of an earlier run. Here both sides are of the same rounds, in random order
within each: the kinder case for them. A rule that takes more rounds than a recording has is left out, and said so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_loraperf.calibrate.files import write_file
from pytest_loraperf.calibrate.noise import Times
from pytest_loraperf.calibrate.recording import Recording, label, read_recording
from pytest_loraperf.calibrate.replay import Rule, Source, Tally, recorded, replay, sequential
from pytest_loraperf.calibrate.table import markdown, number, percent
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.verdict.types import Status

SLOWDOWNS = (0.0, 0.05, 0.10, 0.20)
REPLAYS = 2000
KIND = "peers"
SLACK_S = 0.05e-3
TORCH_CALLS = 20


@dataclass(frozen=True)
class Peer:
    """A rule, what it is called, its limit as a share, and how many rounds it takes at most."""

    name: str
    limit: float
    rounds: int
    rule: Rule


@dataclass(frozen=True)
class Row:
    """What one rule said of one recording: a tally for each slowdown."""

    recording: str
    rule: str
    rounds: int
    tallies: tuple[Tally, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows."""

    rows: tuple[Row, ...]


def median_ratio(samples: Times, reference: Times, limit: float) -> tuple[Status, int]:
    """Judge as pytest-benchmark does."""
    change = float(np.median(samples) / np.median(reference)) * 100 - 100
    return _status(change > limit * 100), len(samples)


def with_slack(samples: Times, reference: Times, limit: float) -> tuple[Status, int]:
    """Judge as pytest-torch's perf_baseline does; of several medians of 20 its BenchmarkSuite takes the least."""
    new, stored = _least_median(samples), round(_least_median(reference), 7)
    return _status(new > stored * (1 + limit) + SLACK_S), len(samples)


def _least_median(times: Times) -> float:
    return float(np.median(times.reshape(-1, TORCH_CALLS), axis=1).min())


def _status(slower: bool) -> Status:
    return Status.FAIL if slower else Status.PASS


PEERS = (
    *(Peer(f"pytest-benchmark, median:5%, {rounds} rounds", 0.05, rounds, median_ratio) for rounds in (5, 20, 50)),
    Peer("pytest-torch, perf_baseline, tolerance 25 % (default)", 0.25, TORCH_CALLS, with_slack),
    Peer("pytest-torch, perf_baseline, tolerance 5 %", 0.05, TORCH_CALLS, with_slack),
    Peer("pytest-torch, BenchmarkSuite, tolerance 5 %", 0.05, 3 * TORCH_CALLS, with_slack),
    *(
        Peer(
            f"pytest-loraperf, limit {100 * limit:g} %, at most {rounds} rounds", limit, rounds, sequential(rounds)
        )
        for limit in (0.02, 0.05)
        for rounds in (20, 60, 150)
    ),
)


def compare(name: str, recording: Recording, replays: int = REPLAYS) -> Iterator[Row]:
    """Yield what each rule that the recording has the rounds for says of its windows."""
    source = recorded(name, recording)
    for peer in PEERS:
        if peer.rounds <= recording.rounds:
            tallies = tuple(_tally(source, peer, slowdown, replays) for slowdown in SLOWDOWNS)
            yield Row(name, peer.name, peer.rounds, tallies)


def _tally(source: Source, peer: Peer, slowdown: float, replays: int) -> Tally:
    return replay(source, slowdown, peer.limit, rule=peer.rule, rounds=peer.rounds, replays=replays)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the rows as one Markdown table."""
    fails = [f"FAIL at {label(slowdown)}" for slowdown in SLOWDOWNS[1:]]
    titles = [
        "rule",
        "recording",
        "false alarms (A/A)",
        *fails,
        "cannot tell (A/A)",
        "rounds (A/A)",
        "rounds (+20%)",
    ]
    yield from markdown([titles, *map(_cells, rows)])


def _cells(row: Row) -> list[str]:
    first, last = row.tallies[0], row.tallies[-1]
    shares = [percent(tally.failed / tally.replays) for tally in row.tallies]
    unsure = percent(first.inconclusive / first.replays)
    return [row.rule, row.recording, *shares, unsure, number(first.rounds), number(last.rounds)]


def notes(name: str, recording: Recording) -> Iterator[str]:
    """Yield what was recorded, and each rule that the recording is too short for."""
    yield f"- {name}: {recording.rounds} rounds of {recording.strategy}, {recording.model}, {recording.machine}"
    for peer in PEERS:
        if peer.rounds > recording.rounds:
            yield f"- {name} is too short for {peer.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 where a file cannot be used."""
    parser = argparse.ArgumentParser(description="peers' rules and ours on the same recorded samples")
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to this file")
    parser.add_argument("--replays", type=int, default=REPLAYS, metavar="N", help="windows of each recording")
    given = parser.parse_args(arguments)
    if given.replays < 1:
        parser.error(f"--replays {given.replays}: a positive whole number is allowed")
    try:
        report(given.recordings, given.json, given.replays)
    except LoraperfError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    return 0


def report(paths: Sequence[Path], out: Path | None, replays: int) -> None:
    """Print the table and its notes, and write the counts.

    Raises:
        LoraperfError: a recording cannot be read, or the file not be written.
    """
    recordings = [(path.stem, read_recording(path)) for path in paths]
    rows = tuple(row for name, recording in recordings for row in compare(name, recording, replays))
    print("\n".join(table(rows)), end="\n\n")
    for name, recording in recordings:
        print("\n".join(notes(name, recording)))
    if out is not None:
        write_file(out, KIND, Comparison(rows))


if __name__ == "__main__":
    sys.exit(main())
