"""Intervals of a centre that assume nothing of the shape of the noise, and how much dependence widens them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, takewhile
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_EXACT_ROUNDS = 128
_ALL_PAIRS = 128
_ROUGHLY = 1e-7
_AT_LEAST = 0.05

Logs = NDArray[np.float64]


def dependence(logs: Logs, *, alone: bool = False) -> float:
    """Return by what factor the dependence of successive rounds widens an interval; 1 where none is seen.

    The correlation seen is taken for a standard error less than it is; of one arm ``alone``, whose times mostly
    do depend, for one more. However dependent, n rounds say no less than one: the factor is √n at most.
    """
    ranks, rounds = _mid_ranks(logs), len(logs)
    before, after = ranks[:-1] - ranks[:-1].mean(), ranks[1:] - ranks[1:].mean()
    spread = math.sqrt(float(before @ before) * float(after @ after))
    if not spread:
        return 1.0
    error = 1 / math.sqrt(rounds)
    taken = float(before @ after) / spread + (error if alone else -error)
    most = (rounds - 1) / (rounds + 1)
    return math.sqrt((1 + min(taken, most)) / (1 - min(taken, most))) if taken > 0 else 1.0


def _mid_ranks(values: Logs) -> Logs:
    """Return the ranks of values, equal ones sharing the middle of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Logs = (last - (counts - 1) / 2)[inverse]
    return middle


def hodges_lehmann(logs: Logs) -> float:
    """Return the median of the Walsh averages."""
    count = len(logs) * (len(logs) + 1) // 2
    middle = walsh_averages(logs, (count - 1) // 2, count // 2)
    return sum(middle) / 2


def walsh_interval(logs: Logs, error: float) -> tuple[float, float]:
    """Return the interval that misses the centre of symmetry with a probability of at most ``error`` a side."""
    cut = signed_rank_cut(len(logs), error)
    if cut < 0:
        raise ValueError(f"{len(logs)} rounds are too few for an error of {error}")
    count = len(logs) * (len(logs) + 1) // 2
    low, high = walsh_averages(logs, cut, count - 1 - cut)
    return low, high


def sign_interval(logs: Logs, error: float) -> tuple[float, float]:
    """Return the interval that misses the median with a probability of at most ``error`` a side."""
    ordered, rounds = np.sort(logs), len(logs)
    cut = sign_cut(rounds, error)
    if cut < 0:
        raise ValueError(f"{rounds} rounds are too few for an error of {error}")
    return float(ordered[cut]), float(ordered[-1 - cut])


@cache
def sign_cut(rounds: int, error: float) -> int:
    """Return the largest k with P(B <= k) <= error, B binomial(rounds, 1/2), or -1."""
    # By logarithms: 2**-rounds is below the smallest float from 1075 rounds on.
    halves = rounds * math.log(2) - math.lgamma(rounds + 1)
    chances = (
        math.exp(-halves - math.lgamma(below + 1) - math.lgamma(rounds - below + 1)) for below in range(rounds + 1)
    )
    return sum(1 for _ in takewhile(lambda tail: tail <= error, accumulate(chances))) - 1


def walsh_averages(logs: Logs, *places: int) -> list[float]:
    """Return the averages of all pairs (each value with itself too) that are at these places in their order."""
    ordered = np.sort(logs)
    if len(ordered) <= _ALL_PAIRS:
        first, second = np.triu_indices(len(ordered))
        averages = np.partition((ordered[first] + ordered[second]) / 2, sorted(set(places)))
        return [float(averages[place]) for place in places]
    return [_search(ordered, place) for place in places]


def _search(ordered: Logs, place: int) -> float:
    """Find a Walsh average by closing in on it: counting those below a value needs no list of all of them.

    Once no more are left than there are values, they are listed (after Johnson and Mizoguchi, *Selecting the K-th
    Element in X + Y*, 1978). Where many are equal that is never so: the search ends when it is as good as exact.
    """
    rounds = len(ordered)
    own = np.arange(1, rounds + 1)
    low, high = float(ordered[0]), float(ordered[-1])
    width = _ROUGHLY * max(1.0, abs(low), abs(high))
    # Of the pairs (i, j) with j <= i, those left have first[i] <= j < last[i].
    first, below_low = np.zeros_like(own), 0
    last, below_high = own, rounds * (rounds + 1) // 2
    aside = -rounds / 3
    while (left := below_high - below_low) > rounds:
        if high - low <= width:
            return high
        # Where the place would be if the pairs lay evenly, and a little beyond: both ends are to come near.
        share = (place + aside - below_low) / left
        middle = low + (high - low) * min(max(share, _AT_LEAST), 1 - _AT_LEAST)
        below = np.minimum(np.searchsorted(ordered, 2 * middle - ordered, side="right"), own)
        if (found := int(below.sum())) > place:
            high, last, below_high, aside = middle, below, found, -rounds / 3
        else:
            low, first, below_low, aside = middle, below, found, rounds / 3
    counts = last - first
    rows = np.repeat(np.arange(rounds), counts)
    columns = np.arange(left) - np.repeat(np.cumsum(counts) - counts - first, counts)
    return float(np.partition((ordered[rows] + ordered[columns]) / 2, place - below_low)[place - below_low])


@cache
def signed_rank_cut(rounds: int, error: float) -> int:
    """Return the largest w with P(signed-rank statistic <= w) <= error under symmetry about zero, or -1.

    Exact up to 128 rounds; beyond by the normal approximation, rounded towards the wider interval.
    """
    if rounds > _EXACT_ROUNDS:
        mean = rounds * (rounds + 1) / 4
        deviation = math.sqrt(rounds * (rounds + 1) * (2 * rounds + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(error) * deviation - 1)
    ways = np.ones(1)
    for rank in range(1, rounds + 1):
        grown = np.zeros(len(ways) + rank)
        grown[: len(ways)] += ways
        grown[rank:] += ways
        ways = grown / 2
    return int(np.searchsorted(np.cumsum(ways), error, side="right")) - 1


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the order-statistics interval of the median, the widest there is where values are few.

    With n values the interval from the k-th smallest to the k-th largest holds the median with probability
    1 - 2 P(B < k), B binomial(n, 1/2); fewer than six values cannot reach 95 % and give their full range (the sign
    test inverted: Conover, *Practical Nonparametric Statistics*, 3rd ed., section 3.2). It describes one arm in
    the table; no verdict follows from it.
    """
    ordered = sorted(values)
    cut = max(sign_cut(len(ordered), (1 - confidence) / 2), 0)
    return ordered[cut], ordered[-1 - cut]
