"""Who holds how much: an arm is charged its own memory, a test the card that it needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pytest_loraperf.measure.memory import Meter


@dataclass
class Peak:
    """Bytes of an arm's operations: the most that it needed, of live tensors alone, and what it keeps afterwards.

    ``needed`` and ``resident`` include the overhead of the process.
    """

    needed: int = 0
    allocated: int = 0
    resident: int = 0

    def take_in(self, other: Peak) -> None:
        """Note the peak of one more operation."""
        self.needed = max(self.needed, other.needed)
        self.allocated = max(self.allocated, other.allocated)
        self.resident = other.resident


@dataclass
class Charge:
    """The most that one test needed at a time, in bytes, by phase: ``setup`` and ``runtime``.

    ``shares`` has what of it were live tensors, and what is no tensor's: the context and libraries.
    """

    phases: dict[str, int] = field(default_factory=dict)
    shares: dict[str, tuple[int, int]] = field(default_factory=dict)

    def raise_to(self, needed: int, phase: str, live: int, outside: int) -> None:
        """Note a need; the largest of each phase stays."""
        if needed >= self.phases.get(phase, 0):
            self.phases[phase] = needed
            self.shares[phase] = live, outside

    @property
    def peak(self) -> tuple[int, str]:
        """The largest need and its phase."""
        return max(((size, phase) for phase, size in self.phases.items()), default=(0, "runtime"))


class Ledger:
    """Memory by holder.

    Pipelines stay built between tests. ``resident`` holds the bytes that each added to what is reserved, so that
    a test is not charged the pipelines of others: with all of them on one device, a test for a small card would
    fail for its neighbours. An arm that fills gaps in others' segments adds less than it needs on a card of its
    own; that is at least its live tensors. ``left`` are bytes that earlier tests left behind, charged to no later
    one.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.resident: dict[str, int] = {}
        self.left = 0
        self._live: dict[str, int] = {}
        self._orphaned = 0
        self._charge: Charge | None = None
        self._phase = ""

    @contextmanager
    def test_phase(self, charge: Charge, phase: str) -> Iterator[None]:
        """Charge the peak of this phase of a test, all but the resident pipelines.

        What the test before left in cycles is young garbage; to collect the old too would take most of a second
        with the modules that diffusion libraries import.
        """
        gc.collect(1)
        self.meter.reset_peak()
        self._charge, self._phase = charge, phase
        try:
            with self.meter.watching():
                yield
        finally:
            self._note(self._held(), self._held_live())
            self._charge = None

    @contextmanager
    def operation(self, holder: str, peak: Peak) -> Iterator[None]:
        """Measure one operation of a holder, and charge it to the test that is under way.

        Afterwards ``resident`` has what the holder keeps.
        """
        self._note(self._held(), self._held_live())
        self.meter.reset_peak()
        others = self._held() - self.resident.get(holder, 0)
        foreign, foreign_live = self.foreign(holder)
        try:
            with self.meter.watching():
                yield
        finally:
            overhead = self.meter.overhead()
            live_peak = self.meter.allocated_peak() - foreign_live
            needed = max(self.meter.peak() - foreign, live_peak) + overhead
            peak.needed = max(peak.needed, needed)
            peak.allocated = max(peak.allocated, live_peak)
            self._note(others, self._held_live() - self._live.get(holder, 0))
            if self._charge is not None:
                self._charge.raise_to(needed, self._phase, live_peak, overhead)
            self.resident[holder] = max(0, self.meter.level() - foreign)
            self._live[holder] = max(0, self.meter.allocated() - foreign_live)
            peak.resident = max(self.resident[holder], self._live[holder]) + overhead
            self.meter.reset_peak()

    def foreign(self, holder: str) -> tuple[int, int]:
        """Return the bytes that are reserved now, and those of live tensors, but for the holder's own."""
        return (
            self.meter.level() - self.resident.get(holder, 0),
            self.meter.allocated() - self._live.get(holder, 0),
        )

    @contextmanager
    def aside(self, holder: str) -> Iterator[None]:
        """Let measuring itself use memory in this context: no test is charged for it."""
        self._note(self._held(), self._held_live())
        charge, self._charge = self._charge, None
        try:
            with self.operation(holder, Peak()):
                yield
        finally:
            self._charge = charge

    @contextmanager
    def release(self, holder: str) -> Iterator[None]:
        """Let go of a holder's memory in this context; segments that others share stay, charged to no test."""
        before = self.meter.level()
        try:
            yield
        finally:
            released = before - self.meter.level()
            self._orphaned += self.resident.pop(holder, 0) - released
            self._live.pop(holder, None)
            self.meter.reset_peak()

    @property
    def live(self) -> int:
        """Bytes of the live tensors of all holders."""
        return sum(self._live.values())

    def live_of(self, holder: str) -> int:
        """Bytes of a holder's live tensors."""
        return self._live.get(holder, 0)

    def _held(self) -> int:
        return sum(self.resident.values()) + self._orphaned + self.left

    def _held_live(self) -> int:
        return self.live + self.left

    def _note(self, not_mine: int, not_mine_live: int) -> None:
        if self._charge is not None:
            needed = self.meter.peak() - not_mine
            if needed > 0:
                outside = self.meter.overhead()
                live = min(needed, max(0, self.meter.allocated_peak() - not_mine_live))
                self._charge.raise_to(needed + outside, self._phase, live, outside)
