"""From pairs of times to counts: how often a rule of decision says what, by known slowdowns and limits.

A simulated kind draws anew for each replay. A recording is replayed by windows of successive rounds from a random
start, going on at its beginning where it ends: what one round has to do with the next is kept (the circular block
bootstrap, Politis & Romano 1992, of one block). Windows of one recording overlap: their counts are
less sure than as many independent ones. Its two equal arms change places in every other replay on average, so
that neither is the slower one by the chance of one recording (a permutation of what is exchangeable under A/A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from pytest_loraperf.calibrate.noise import Kind, Pair, Times
from pytest_loraperf.calibrate.recording import AGAIN, REFERENCE, Recording, label
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.verdict.decision import decide
from pytest_loraperf.verdict.types import Status

SLOWDOWNS = (0.0, 0.02, 0.05, 0.10, 0.20)
LIMITS = (0.02, 0.05)


class Draw(Protocol):
    """From a generator, a number of rounds and a slowdown (0.05: 5 % slower) to a pair of so many rounds.

    ``exact`` asks for a pair that is slower by just that share, as a count of false alarms needs it; otherwise an
    arm that was recorded slower by about that share may stand for it.
    """

    def __call__(self, rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = False) -> Pair:
        """Draw a pair."""
        ...


Rule = Callable[[Times, Times, float], tuple[Status, int]]
"""From seconds, seconds of the reference and a limit (0.05: 5 % slower) to a status and the rounds it took."""


@dataclass(frozen=True)
class Source:
    """Where pairs of times come from."""

    name: str
    draw: Draw


@dataclass(frozen=True)
class Tally:
    """How the replays of one source, slowdown and limit ended.

    ``slowdown`` and ``limit`` are shares (0.05: 5 % slower), the counts add up to ``replays``. ``false_alarms`` is
    the share of FAIL where the slowdown is at most the limit, ``power`` that where it is more; the other one is
    None. ``rounds`` and ``seconds`` (of both arms) are medians over the replays that came to a PASS or FAIL, None
    where none did.
    """

    source: str
    slowdown: float
    limit: float
    replays: int
    passed: int
    failed: int
    inconclusive: int
    false_alarms: float | None
    power: float | None
    rounds: float | None
    seconds: float | None


def simulated(name: str, kind: Kind) -> Source:
    """Return a source that draws this kind of noise, one arm slower by a factor."""

    # Always exact.
    def draw(rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = True) -> Pair:  # noqa: ARG001
        samples, reference = kind(rng, rounds)
        return samples * (1 + slowdown), reference

    return Source(name, draw)


def recorded(name: str, recording: Recording) -> Source:
    """Return a source of windows of a recording; a slowdown that is exact, or not recorded, is A/A scaled."""
    arms = {name: np.array(times) for name, times in recording.arms.items()}

    def draw(rng: np.random.Generator, rounds: int, slowdown: float, *, exact: bool = False) -> Pair:
        if rounds > recording.rounds:
            raise LoraperfError(
                f"{rounds} rounds are asked for, the recording has {recording.rounds}; "
                f"record as many, or ask for at most {recording.rounds}"
            )
        window = (rng.integers(recording.rounds) + np.arange(rounds)) % recording.rounds
        slow = arms.get(label(slowdown)) if slowdown and not exact else None
        if slow is not None:
            return slow[window], arms[REFERENCE][window]
        samples, reference = (arms[name][window] for name in rng.permutation([AGAIN, REFERENCE]))
        return samples * (1 + slowdown), reference

    return Source(name, draw)


def sequential(max_rounds: int) -> Rule:
    """Return the rule of this plugin's own verdicts, ended after so many rounds."""

    def judge(samples: Times, reference: Times, limit: float) -> tuple[Status, int]:
        found = decide(samples.tolist(), reference.tolist(), max_ratio=1 + limit, max_rounds=max_rounds)
        return found.status, found.rounds

    return judge


def replay(
    source: Source, slowdown: float, limit: float, *, rule: Rule, rounds: int, replays: int, seed: int = 0
) -> Tally:
    """Judge so many draws of so many rounds.

    Equal seeds draw equal noise for every slowdown and limit, so these are compared like with like.
    """
    rng = np.random.default_rng(seed)
    exact = slowdown <= limit
    ended = [_judged(rule, source.draw(rng, rounds, slowdown, exact=exact), limit) for _ in range(replays)]
    statuses = [status for status, _, _ in ended]
    told = [(used, seconds) for status, used, seconds in ended if status in (Status.PASS, Status.FAIL)]
    share = statuses.count(Status.FAIL) / replays
    return Tally(
        source=source.name,
        slowdown=slowdown,
        limit=limit,
        replays=replays,
        passed=statuses.count(Status.PASS),
        failed=statuses.count(Status.FAIL),
        inconclusive=statuses.count(Status.INCONCLUSIVE),
        false_alarms=share if slowdown <= limit else None,
        power=share if slowdown > limit else None,
        rounds=median(used for used, _ in told) if told else None,
        seconds=median(seconds for _, seconds in told) if told else None,
    )


def _judged(rule: Rule, pair: Pair, limit: float) -> tuple[Status, int, float]:
    samples, reference = pair
    status, used = rule(samples, reference, limit)
    return status, used, float(samples[:used].sum() + reference[:used].sum())


def replay_all(
    sources: Sequence[Source],
    *,
    rule: Rule,
    rounds: int,
    replays: int,
    tell: Callable[[str], None],
    slowdowns: Sequence[float] = SLOWDOWNS,
) -> Iterator[Tally]:
    """Yield the tally of every source, limit and slowdown."""
    for source in sources:
        for limit in LIMITS:
            for slowdown in slowdowns:
                tell(f"{source.name} noise: {label(slowdown)} against a limit of {label(limit)}")
                yield replay(source, slowdown, limit, rule=rule, rounds=rounds, replays=replays)
