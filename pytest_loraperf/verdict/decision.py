"""The one place where samples become a decision: at most so many times as long as a reference, or not.

**What is looked at.** The logarithm of time over reference time of each round. What a round shares (clocks, a
neighbour, a busy CPU) cancels; what is left is symmetric about the true ratio wherever the two arms are alike in
their noise, whatever its shape: Gaussian, heavy-tailed, of two modes, or larger in some rounds than in others.

**One look.** The interval of the Wilcoxon signed-rank test, from the averages of all pairs of log ratios (Walsh
averages): it holds the centre of symmetry with the wanted confidence for any symmetric noise (Hollander, Wolfe &
Chicken, *Nonparametric Statistical Methods*, 3rd ed., sections 3.1 to 3.3). The estimate is their median, that of
Hodges and Lehmann: nearly as precise as the mean in Gaussian noise, and hardly moved by outliers.

**Against a limit in seconds** there is one arm's noise alone, and that is skewed: slow samples are slower than
fast ones are fast. There the interval is that of the median, by the sign test, which needs no symmetry (Conover,
*Practical Nonparametric Statistics*, 3rd ed., section 3.2), and the estimate is the median.

**Many looks.** Samples are looked at after 9 rounds, then each time that there are 1.5 times as many, up to 548,
and once more when they end. Each look has its own share of the error ``ALPHA``, and the shares add up to it: by
the union bound no stopping rule makes the error larger, however the looks depend on each other (repeated
confidence intervals: Jennison & Turnbull, *Group Sequential Methods*, 2000, chapter 9).

**Dependence.** Rounds that resemble the round before say less than independent ones. The interval is widened by
√((1 + r) / (1 - r)), the factor of the standard error of a first-order autoregressive series, where r is above
zero. It is the rank correlation of successive rounds, less its standard error under independence where two arms
are compared, plus that where one arm is held to a limit in seconds: in the recordings of H100s the ratios of
successive rounds correlate by -0.06 to 0.06, the times of one arm by 0.4 to 0.7.

**Few rounds.** Below 9 rounds no test without assumptions can be this sure, and an arm of minutes a call must be
judged from three all the same. There the interval is all that was seen, widened by the factor ``CLEAR`` on both
sides. A loaded CPU moves one sample by 65 % (standard deviation); three rounds in a row beyond a factor of three
are rarer than the error below, but on a machine that stalls for many times as long as a call they do occur.

Assumed: noise that is symmetric in the sense above, and a dependence between rounds that a few rounds can show.
``docs/noise.md`` counts the errors where that is not so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_loraperf.verdict.given import check_limit, check_rounds, log_seconds
from pytest_loraperf.verdict.intervals import Logs, dependence, hodges_lehmann, sign_interval, walsh_interval
from pytest_loraperf.verdict.types import Status

ALPHA = 0.01
"""The largest probability of a wrong FAIL, and that of a wrong PASS, at the limit itself; less beyond it."""
CLEAR = 3.0
CLEAR_ROUNDS = 3
FIRST_LOOK = 9
_GROWTH = 1.5
_LOOKS = 11
# What each look may err: 2**-9 is just below the first share; the last look is the one that decides what is close.
_FIRST, _LAST = 0.2 * ALPHA, 0.4 * ALPHA
_EACH = (ALPHA - _FIRST - _LAST) / (_LOOKS - 1)
_ROUNDING = 1e-7
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class Decision:
    """A ratio of times, its interval, and whether it is within the limit.

    ``ratio`` and ``interval`` are dimensionless (time over reference time); ``rounds`` counts the pairs used. The
    interval is what the status follows from: PASS when it lies within the limit, FAIL when beyond. It holds the
    true ratio with a probability of 98 % at the least, 99 % on each side, whenever sampling stopped.
    """

    status: Status
    rounds: int
    ratio: float
    interval: tuple[float, float]


def decide(
    samples: Sequence[float],
    reference: Sequence[float],
    *,
    max_ratio: float,
    max_rounds: int | None = None,
) -> Decision:
    """Judge whether ``samples`` take at most ``max_ratio`` times as long as ``reference``.

    The rounds are taken in their order, as if they were being measured: the first look that can tell decides, and
    what comes after it is not used. See the module for the method, its assumptions and sources.

    Args:
        samples: seconds, one a round, in the order measured.
        reference: seconds of the reference in the same rounds; equally long. An absolute budget is a constant one.
        max_ratio: the limit on time over reference time; below 1 it asks for a speed-up.
        max_rounds: use the first so many rounds only; None uses all.

    Returns:
        PASS or FAIL as soon as the interval is on one side of the limit, INCONCLUSIVE when the rounds end first.

    Raises:
        ValueError: the lengths differ, there is no round, a time or the limit is not positive and finite, or
            ``max_rounds`` is no positive whole number.
    """
    check_limit(max_ratio)
    check_rounds(max_rounds)
    logs = log_ratios(samples, reference)[:max_rounds]
    if not len(logs):
        raise ValueError("there are no samples; at least one round is needed")
    constant = _is_constant(reference)
    for rounds in looks():
        if rounds >= len(logs):
            break
        found = look(logs[:rounds], max_ratio, constant=constant)
        if found is not None:
            return found
    return last_look(logs, max_ratio, constant=constant)


def estimate(samples: Sequence[float], reference: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the ratio of times over all rounds and its interval, with no limit to judge."""
    found = last_look(log_ratios(samples, reference), 1.0, constant=_is_constant(reference))
    return found.ratio, found.interval


def settled(samples: Sequence[float], reference: Sequence[float], max_ratio: float, looked_at: int = 0) -> bool:
    """Whether one of the looks so far can tell, so that more rounds would be of no use.

    Those at up to ``looked_at`` rounds are known not to.
    """
    logs = log_ratios(samples, reference)
    due = (rounds for rounds in looks() if looked_at < rounds <= len(logs))
    constant = _is_constant(reference)
    return any(look(logs[:rounds], max_ratio, constant=constant) is not None for rounds in due)


def _is_constant(reference: Sequence[float]) -> bool:
    return len(set(reference)) == 1


def log_ratios(samples: Sequence[float], reference: Sequence[float]) -> Logs:
    """Return log(sample / reference) of each round.

    Raises:
        ValueError: the lengths differ, or a time is not positive and finite.
    """
    logs, reference_logs = log_seconds(samples), log_seconds(reference)
    if len(logs) != len(reference_logs):
        raise ValueError(f"{len(logs)} samples but {len(reference_logs)} of the reference; rounds come in pairs")
    return logs - reference_logs


def looks() -> Iterator[int]:
    """Yield after how many rounds samples are looked at, but for the last look, when they end."""
    yield CLEAR_ROUNDS
    rounds = FIRST_LOOK
    for _ in range(_LOOKS):
        yield rounds
        rounds = math.ceil(rounds * _GROWTH)


def look(logs: Logs, max_ratio: float, *, constant: bool = False) -> Decision | None:
    """Judge by the rounds so far, at one of the ``looks``; None where they cannot tell.

    ``constant``: the reference is a limit and no arm, so that the noise is one arm's own and not symmetric.
    """
    interval = _interval(logs, _FIRST if len(logs) == FIRST_LOOK else _EACH, constant=constant)
    status = status_of(interval, max_ratio)
    return None if status is Status.INCONCLUSIVE else _decision(status, logs, interval, constant=constant)


def last_look(logs: Logs, max_ratio: float, *, constant: bool = False) -> Decision:
    """Judge by all rounds that there are."""
    interval = _interval(logs, _LAST, constant=constant)
    return _decision(status_of(interval, max_ratio), logs, interval, constant=constant)


def _decision(status: Status, logs: Logs, interval: tuple[float, float], *, constant: bool) -> Decision:
    centre = float(np.median(logs)) if constant else hodges_lehmann(logs)
    return Decision(status, len(logs), ratio_of(centre), interval)


def ratio_of(log: float) -> float:
    """Return the ratio of a logarithm; one beyond the range of floats means nothing and is cut to it."""
    return math.exp(min(log, _LARGEST_LOG))


def status_of(interval: tuple[float, float], limit: float) -> Status:
    """Return PASS for an interval within the limit, FAIL for one beyond, else INCONCLUSIVE."""
    low, high = interval
    # What touches the limit within rounding is inside it: equal is "at most".
    if high <= limit * (1 + _ROUNDING):
        return Status.PASS
    return Status.FAIL if low > limit * (1 + _ROUNDING) else Status.INCONCLUSIVE


def _interval(logs: Logs, error: float, *, constant: bool) -> tuple[float, float]:
    """Return the interval of the ratio at one look."""
    if len(logs) < CLEAR_ROUNDS:
        return 0.0, math.inf
    if len(logs) < FIRST_LOOK:
        return ratio_of(logs.min()) / CLEAR, ratio_of(logs.max()) * CLEAR
    low, high = sign_interval(logs, error) if constant else walsh_interval(logs, error)
    more = (dependence(logs, alone=constant) - 1) * (high - low) / 2
    return ratio_of(low - more), ratio_of(high + more)
