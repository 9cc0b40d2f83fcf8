"""Samples of two runs become a decision: at most so many times as long as a reference that was measured apart.

**What is looked at.** The logarithms of the times, which need no rounds in common. If one run's are the other's
moved by a constant, that constant is the logarithm of the ratio of times. The estimate is the shift of Hodges and
Lehmann, the median of the differences of all pairs, one time of each run. The interval is that of the Mann-Whitney
(Wilcoxon rank-sum) test, with an error of ``ALPHA`` a side: it holds the shift whatever the shape of the noise
(Hollander, Wolfe & Chicken, *Nonparametric Statistical Methods*, 3rd ed., sections 4.1 to 4.3).

**Few samples.** Where no test without assumptions can be this sure (below five on each side), the interval is all
that was seen, widened by the factor ``CLEAR`` on both sides, as for paired rounds.

Successive samples that resemble each other say less than independent ones: from 20 samples on the interval is
widened as that of one arm against a limit in seconds is (``verdict/decision.py``), by the run in which they do so
more. Fewer samples say too little of it: where they depend, errors at the limit itself are more than ``ALPHA``.

Assumed: one look at the samples. What differs between the runs as a whole (clocks, neighbours, temperature) is
*not* in the interval; ratios within one run (``decide``) are to be preferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

from pytest_loraperf.verdict.decision import ALPHA, CLEAR, CLEAR_ROUNDS, Decision, ratio_of, status_of
from pytest_loraperf.verdict.given import check_limit, log_seconds
from pytest_loraperf.verdict.intervals import Logs, dependence

MOST_SAMPLES = 2000
_EXACT_PAIRS = 1600
_ENOUGH_TO_SEE = 20  # fewer samples show no dependence, and widening by chance would cost power


def decide_unpaired(samples: Sequence[float], reference: Sequence[float], *, max_ratio: float) -> Decision:
    """Judge whether ``samples`` take at most ``max_ratio`` times as long as a ``reference`` of another run.

    See the module for the method, its assumptions and sources. Of more than 2000 samples on a side, 2000 evenly
    spaced ones are used: all pairs would need too much memory, and the interval is narrow by then.

    Args:
        samples: seconds, in the order measured.
        reference: seconds of the reference; any number of them.
        max_ratio: the limit on time over reference time; below 1 it asks for a speed-up.

    Returns:
        PASS or FAIL where the interval of the ratio is on one side of the limit, else INCONCLUSIVE; ``rounds`` is
        the smaller count of the samples used. Below 3 on a side the interval is (0, inf).

    Raises:
        ValueError: a side is empty, or a time or the limit is not positive and finite.
    """
    check_limit(max_ratio)
    logs, reference_logs = _logs(samples), _logs(reference)
    shifts = np.sort(np.subtract.outer(logs, reference_logs), axis=None)
    middle = shifts[(len(shifts) - 1) // 2] + shifts[len(shifts) // 2]
    rounds = min(len(logs), len(reference_logs))
    wider = 1.0
    if rounds >= _ENOUGH_TO_SEE:
        wider = max(dependence(each, alone=True) for each in (logs, reference_logs))
    interval = _interval(shifts, len(logs), len(reference_logs), wider)
    return Decision(status_of(interval, max_ratio), rounds, ratio_of(middle / 2), interval)


def _logs(times: Sequence[float]) -> Logs:
    logs = log_seconds(times)
    if not len(logs):
        raise ValueError("a side has no samples; at least one is needed")
    if len(logs) > MOST_SAMPLES:
        logs = logs[np.linspace(0, len(logs) - 1, MOST_SAMPLES).round().astype(int)]
    return logs


def _interval(shifts: Logs, first: int, second: int, wider: float) -> tuple[float, float]:
    """Return the interval of the ratio, ``wider`` by a factor for the dependence of successive samples.

    ``shifts`` are the differences of all pairs of logs in their order.
    """
    if min(first, second) < CLEAR_ROUNDS:
        return 0.0, math.inf
    cut = rank_sum_cut(first, second, ALPHA)
    if cut < 0:
        return ratio_of(shifts[0]) / CLEAR, ratio_of(shifts[-1]) * CLEAR
    low, high = shifts[cut], shifts[-1 - cut]
    more = (wider - 1) * (high - low) / 2
    return ratio_of(low - more), ratio_of(high + more)


@cache
def rank_sum_cut(first: int, second: int, error: float) -> int:
    """Return the largest u with P(Mann-Whitney statistic <= u) <= error where the sides do not differ, or -1.

    Exact up to 1600 pairs; beyond by the normal approximation, rounded towards the wider interval.
    """
    if first * second > _EXACT_PAIRS:
        mean = first * second / 2
        deviation = math.sqrt(first * second * (first + second + 1) / 12)
        return math.floor(mean + NormalDist().inv_cdf(error) * deviation - 1)
    chances = np.cumsum(_rank_sum_chances(first, second))
    return int(np.searchsorted(chances, error * (1 + 1e-12), side="right")) - 1


def _rank_sum_chances(first: int, second: int) -> Logs:
    """Return P(U = u) for u of 0 to first · second.

    The largest of i and j values is of the first side with the chance i / (i + j), and then larger than all j.
    """
    none = np.zeros(first * second + 1)
    none[0] = 1.0
    row = [none] * (second + 1)
    for i in range(1, first + 1):
        for j in range(1, second + 1):
            moved = np.concatenate((np.zeros(j), row[j][:-j]))
            row[j] = (i * moved + j * row[j - 1]) / (i + j)
    return row[second]
