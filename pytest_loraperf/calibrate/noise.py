"""Simulated noise: two arms that take equally long, by five ways in which a machine can be noisy.

Each kind takes a random generator and a number of rounds, and returns the seconds of both arms, around 1 s. What
is drawn is their logarithms, so times are positive, and a factor is a shift.

**The level.** That of a short generation on an H100 with nothing else on it, five arms in random order within each
round: one sample varied by 24 % (standard deviation), and the log times of one round correlated by 0.6 to 0.8.
With a correlation of 0.7, √0.7 of the 24 % is what a round shares, and √0.3 is each sample's own. That is much: a
GPU-bound model of full size is far steadier.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Pair = tuple[Times, Times]
"""Seconds of the samples and of the reference, one of each a round."""
Kind = Callable[[np.random.Generator, int], Pair]

SAMPLE = 0.24
CORRELATION = 0.7
SHARED = SAMPLE * sqrt(CORRELATION)
OWN = SAMPLE * sqrt(1 - CORRELATION)

_FREEDOM = 3
_GAP, _SLOW = 0.25, 0.3
_TREND_TURNS = 60
_BURST, _BURST_TURNS, _CALM_TURNS = log(1.65), 8, 32


def gaussian(rng: np.random.Generator, rounds: int) -> Pair:
    """Draw Gaussian logarithms, both what is shared and what is each sample's own: the textbook's noise."""
    return _times(_shared(rng, rounds) + rng.normal(0, OWN, (2, rounds)))


def heavy_tailed(rng: np.random.Generator, rounds: int) -> Pair:
    """Draw each sample's own part from Student's t with 3 degrees of freedom, scaled to the same deviation.

    The fewest degrees at which there still is a deviation: one sample in 70 is more than three of them away.
    """
    own = rng.standard_t(_FREEDOM, (2, rounds)) * OWN / sqrt(_FREEDOM / (_FREEDOM - 2))
    return _times(_shared(rng, rounds) + own)


def bimodal(rng: np.random.Generator, rounds: int) -> Pair:
    """Let three samples in ten be a quarter slower, as by another clock step; the deviation is the same.

    Each sample falls into its mode by itself, so the ratio of a round has three modes.
    """
    slow = _GAP * (rng.random((2, rounds)) < _SLOW)
    jitter = sqrt(OWN**2 - _SLOW * (1 - _SLOW) * _GAP**2)
    return _times(_shared(rng, rounds) + slow + rng.normal(0, jitter, (2, rounds)))


def drifting(rng: np.random.Generator, rounds: int) -> Pair:
    """Let time itself get slower or faster, turn by turn: a trend, as of a card that warms, and a random walk.

    Over 60 turns each of the two comes to what a round shares in the other kinds. Within a round the order of the
    arms is random, so the turn between them favours neither.
    """
    turns = 2 * rounds
    trend = rng.normal(0, SHARED / _TREND_TURNS) * np.arange(turns)
    walk = rng.normal(0, SHARED / sqrt(_TREND_TURNS), turns).cumsum()
    return _times(_dealt(rng, trend + walk) + rng.normal(0, OWN, (2, rounds)))


def bursty(rng: np.random.Generator, rounds: int) -> Pair:
    """Let a neighbour come and go: in 8 turns of 40, all takes 1.65 times as long and jitters twice as much.

    65 % is what one sample was seen to vary by beside a loaded CPU. Bursts begin and end at any turn, between the
    two arms of a round too; calm and burst last geometrically long (a two-state Markov chain). One sample varies
    by 26 %, and the correlation within a round is 0.5.
    """
    turns = 2 * rounds
    states = (np.arange(turns) + (rng.random() * (_BURST_TURNS + _CALM_TURNS) < _BURST_TURNS)) % 2
    lengths = rng.geometric(np.where(states, 1 / _BURST_TURNS, 1 / _CALM_TURNS))
    burst = _dealt(rng, np.repeat(states, lengths)[:turns].astype(float))
    return _times(_BURST * burst + (1 + burst) * rng.normal(0, OWN, (2, rounds)))


KINDS: dict[str, Kind] = {
    "Gaussian": gaussian,
    "heavy-tailed": heavy_tailed,
    "bimodal": bimodal,
    "drifting": drifting,
    "bursty": bursty,
}


def _shared(rng: np.random.Generator, rounds: int) -> Times:
    return rng.normal(0, SHARED, rounds)


def _dealt(rng: np.random.Generator, course: Times) -> Times:
    """Deal what happens turn by turn to the two arms, in random order within each round; shape (2, rounds)."""
    return rng.permuted(course.reshape(-1, 2), axis=1).T


def _times(logs: Times) -> Pair:
    samples, reference = np.exp(logs)
    return samples, reference
