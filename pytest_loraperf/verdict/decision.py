"""The one place where samples become a decision.

The method is simple on purpose: the median of the within-round log ratios, and its distribution-free
interval from the order statistics (the sign test inverted: Conover, *Practical Nonparametric Statistics*,
3rd ed., section 3.2). The rounds are decided on once, after the last; looking in between would inflate the
error, and nothing here does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from pytest_loraperf.verdict.types import Status

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Decision:
    """A ratio of times, its interval, and whether it is within the limit.

    ``ratio`` and ``interval`` are dimensionless (time over reference time); ``rounds`` counts the pairs used.
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

    Args:
        samples: seconds, one a round, in the order measured.
        reference: seconds of the reference in the same rounds; equally long.
        max_ratio: the limit on time over reference time.
        max_rounds: use the first so many rounds only; None uses all.

    Returns:
        PASS when the interval lies within the limit, FAIL when it lies beyond, else INCONCLUSIVE.

    Raises:
        ValueError: the lengths differ, there is no round, or a time is not positive and finite.
    """
    if len(samples) != len(reference):
        raise ValueError(f"{len(samples)} samples but {len(reference)} of the reference; rounds come in pairs")
    if not math.isfinite(max_ratio) or max_ratio <= 0:
        raise ValueError(f"max_ratio {max_ratio!r} is not a positive number")
    pairs = list(zip(samples, reference, strict=True))[:max_rounds]
    if not pairs or not all(math.isfinite(t) and t > 0 for pair in pairs for t in pair):
        raise ValueError("samples must be positive, finite seconds, and at least one")
    logs = [math.log(sample) - math.log(base) for sample, base in pairs]
    low, high = median_interval(logs)
    interval = (math.exp(low), math.exp(high))
    return Decision(_status(interval, max_ratio), len(pairs), math.exp(median(logs)), interval)


def _status(interval: tuple[float, float], limit: float) -> Status:
    low, high = interval
    # An interval that touches the limit within rounding is inside it: equal is "at most".
    if high <= limit * (1 + 1e-12):
        return Status.PASS
    return Status.FAIL if low > limit else Status.INCONCLUSIVE


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the order-statistics interval of the median, the widest there is where values are few.

    With n values the interval from the k-th smallest to the k-th largest holds the median with probability
    1 - 2 P(B < k), B binomial(n, 1/2); fewer than six values cannot reach 95 % and give their full range.
    """
    ordered = sorted(values)
    n = len(ordered)
    tails = accumulate(math.comb(n, i) / 2**n for i in range(n // 2))
    k = sum(1 for tail in tails if 2 * tail <= 1 - confidence)
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]
