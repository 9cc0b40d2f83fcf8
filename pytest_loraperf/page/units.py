"""One unit for all numbers of a chart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_BYTES = (("TB", 2**40), ("GB", 2**30), ("MB", 2**20), ("kB", 2**10), ("B", 1))
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


class Unit(NamedTuple):
    """A unit's name, and how much it is in bytes or seconds."""

    name: str
    size: float


def bytes_unit(sizes: Iterable[float]) -> Unit:
    """Return the unit in which the largest of the sizes is at least one."""
    return _fitting(_BYTES, sizes)


def seconds_unit(times: Iterable[float]) -> Unit:
    """Return the unit in which the largest of the times is at least one."""
    return _fitting(_SECONDS, times)


def _fitting(units: tuple[tuple[str, float], ...], values: Iterable[float]) -> Unit:
    most = max(values, default=0)
    return next((Unit(*unit) for unit in units if most >= unit[1]), Unit(*units[-1]))
