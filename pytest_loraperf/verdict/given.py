"""What callers give to be judged, checked: seconds, and the limits on their ratio and on rounds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import index
from reprlib import repr as shortened
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

_NUMBERS = "iuf"  # numpy's kinds: signed and unsigned integers, and floats


def log_seconds(times: Sequence[float]) -> NDArray[np.float64]:
    """Return the logarithms of seconds, shape (rounds,); of none there are none.

    Raises:
        ValueError: it is no sequence of numbers, or one is not positive and finite.
    """
    try:
        found = np.asarray(times)
    except ValueError:  # rows of different lengths
        found = np.array(None)
    if found.ndim != 1 or found.dtype.kind not in _NUMBERS:
        raise ValueError(f"got {shortened(times)}; a sequence of seconds is allowed, a number for each round")
    bad = np.flatnonzero(~(np.isfinite(found) & (found > 0)))
    if len(bad):
        raise ValueError(f"round {bad[0] + 1} has {found[bad[0]]} s; positive, finite seconds are allowed")
    logs: NDArray[np.float64] = np.log(found.astype(float))
    return logs


def check_limit(max_ratio: object) -> None:
    """Check a limit on a ratio of times.

    Raises:
        ValueError: it is no positive, finite number.
    """
    if not isinstance(max_ratio, int | float) or not 0 < max_ratio <= sys.float_info.max:
        raise ValueError(f"max_ratio {max_ratio!r} is not a positive number")


def check_rounds(max_rounds: object) -> None:
    """Check a limit on the number of rounds, None being all.

    Raises:
        ValueError: it is no positive whole number.
    """
    if max_rounds is not None and not (isinstance(max_rounds, SupportsIndex) and index(max_rounds) >= 1):
        raise ValueError(f"max_rounds {max_rounds!r}: a positive whole number, or None for all")
