"""Memory over one generation: what is held as each denoising step begins, and as each module is called."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

from torch import nn

from pytest_loraperf.measure.memory import Meter

MOST = 200
"""Moments that are kept of a generation."""
GAP = 0.002
"""Seconds between two looks at calls at least: asking CUDA's allocator takes 0.1 ms, and a model has thousands."""


class Moment(NamedTuple):
    """Seconds since the generation began; bytes of a card that are needed, and of live tensors alone."""

    seconds: float
    needed: int
    live: int


@dataclass(frozen=True)
class Timeline:
    """At most ``MOST`` moments in order; ``steps`` are the seconds where a step begins or the last ends."""

    moments: tuple[Moment, ...]
    steps: tuple[float, ...]


class MemoryWatch:
    """Looks at a meter whenever ``tick`` is called and, if ``calls``, as a call of a module begins or ends.

    The calls are looked at ``gap`` seconds apart at least.
    ``others`` are the bytes reserved and live that are not of this generation. A peak of the meter that rose since
    the last look was reached in between, so none is missed.
    """

    def __init__(
        self,
        meter: Meter,
        others: tuple[int, int] = (0, 0),
        *,
        calls: bool = True,
        gap: float = GAP,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._meter = meter
        self._others, self._others_live = others
        self._calls = calls
        self._gap = gap
        self._clock = clock
        self._moments: list[Moment] = []
        self._steps: list[float] = []
        self._start = 0.0
        self._peaks = (0, 0)
        self._overhead = 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look in this context, at its two ends too."""
        self._overhead = self._meter.overhead()
        self._peaks = self._meter.peak(), self._meter.allocated_peak()
        self._start = self._clock()
        self._look()
        with self._at_calls() if self._calls else nullcontext():
            yield
        self._look()

    def tick(self) -> None:
        """Note that a denoising step begins, or that the last has ended."""
        self._look()
        self._steps.append(self._moments[-1].seconds)

    @property
    def timeline(self) -> Timeline:
        """What was seen."""
        return Timeline(thinned(self._moments, MOST), tuple(self._steps))

    def _look(self) -> None:
        before, before_live = self._peaks
        peak, live_peak = self._peaks = self._meter.peak(), self._meter.allocated_peak()
        reserved = peak if peak > before else self._meter.reserved_now()
        live = (live_peak if live_peak > before_live else self._meter.allocated()) - self._others_live
        needed = max(reserved - self._others, live) + self._overhead
        self._moments.append(Moment(self._clock() - self._start, max(0, needed), max(0, live)))

    def _look_again(self) -> None:
        if self._clock() - self._start - self._moments[-1].seconds >= self._gap:
            self._look()

    @contextmanager
    def _at_calls(self) -> Iterator[None]:
        call: Callable[..., Any] = nn.Module.__call__

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self._look_again()
            try:
                return call(module, *args, **kwargs)
            finally:
                self._look_again()

        with patch.object(nn.Module, "__call__", watched):
            yield


def thinned(moments: Sequence[Moment], most: int) -> tuple[Moment, ...]:
    """Return at most so many (three or more): the first, the last, and the highest of each stretch between."""
    if len(moments) <= most:
        return tuple(moments)
    inner = moments[1:-1]
    length = math.ceil(len(inner) / (most - 2))
    stretches = (inner[start : start + length] for start in range(0, len(inner), length))
    highest = (max(stretch, key=lambda moment: (moment.needed, moment.live)) for stretch in stretches)
    return (moments[0], *highest, moments[-1])
