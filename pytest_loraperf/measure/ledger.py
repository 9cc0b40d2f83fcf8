"""Who holds how much: an arm is charged its own memory, a test the card that it needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pytest_loraperf.measure.memory import Meter


@dataclass
class Peak:
    """The peak of one operation in bytes: what its arm needs, overhead included, and live tensors alone."""

    needed: int = 0
    allocated: int = 0


@dataclass
class Charge:
    """The most that one test needed at a time, in bytes, by phase: ``setup``, ``resident``, ``runtime``."""

    phases: dict[str, int] = field(default_factory=dict)

    def raise_to(self, needed: int, phase: str) -> None:
        """Note a need; the largest of each phase stays."""
        self.phases[phase] = max(needed, self.phases.get(phase, 0))

    @property
    def peak(self) -> tuple[int, str]:
        """The largest need and its phase."""
        return max(((size, phase) for phase, size in self.phases.items()), default=(0, "runtime"))


class Ledger:
    """Memory by holder.

    Pipelines stay built between tests. ``resident`` holds the bytes of each, so that a test is not charged the
    pipelines of others: with all of them on one device, a test for a small card would fail for its neighbours.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.resident: dict[str, int] = {}
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
            self._note(sum(self.resident.values()))
            self._charge = None

    @contextmanager
    def operation(self, holder: str, peak: Peak) -> Iterator[None]:
        """Measure one operation of a holder, and charge it to the test that is under way.

        Afterwards ``resident`` has what the holder keeps.
        """
        self._note(sum(self.resident.values()))
        self.meter.reset_peak()
        mine = self.resident.get(holder, 0)
        others = sum(self.resident.values()) - mine
        foreign = self.meter.level() - mine
        try:
            with self.meter.watching():
                yield
        finally:
            overhead = self.meter.overhead()
            peak.needed = max(peak.needed, self.meter.peak() - foreign + overhead)
            peak.allocated = max(peak.allocated, self.meter.allocated_peak() - foreign)
            self._note(others)
            self.resident[holder] = max(0, self.meter.level() - foreign)
            self.meter.reset_peak()

    def forget(self, holder: str) -> None:
        """The holder's memory was given back."""
        self.resident.pop(holder, None)
        self.meter.reset_peak()

    def _note(self, not_mine: int) -> None:
        if self._charge is not None:
            needed = self.meter.peak() - not_mine
            if needed > 0:
                self._charge.raise_to(needed + self.meter.overhead(), self._phase)
