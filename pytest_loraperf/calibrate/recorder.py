"""Recording: one workload, and the same made slower by known amounts, in interleaved rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_loraperf.calibrate.recording import AGAIN, REFERENCE, label
from pytest_loraperf.measure.rounds import Rounds, Workload, take_rounds
from pytest_loraperf.measure.timing import Plan, Stopwatch, Tick

Arms = dict[str, tuple[float, ...]]
Order = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Slowed:
    """A workload that takes ``slowdown`` (0.05: 5 %) longer, on the CPU: as by a launch, a copy or a Python hook.

    It waits for the device, then keeps busy for that share of the time that this very call took: it is slower by
    the share in every round, whatever the round's noise. A share of 0 is the workload as it is.
    """

    name: str
    workload: Workload
    slowdown: float
    watch: Stopwatch

    @property
    def key(self) -> str:
        """Its name: these arms are of one workload."""
        return self.name

    def prepare(self) -> float | None:
        """Prepare the workload itself."""
        return self.workload.prepare()

    def call(self, tick: Tick) -> object:
        """Call the workload, then keep busy."""
        if not self.slowdown:
            return self.workload.call(tick)
        seconds = self.watch.time(lambda: self.workload.call(tick))
        end = self.watch.clock() + self.slowdown * seconds
        while self.watch.clock() < end:
            pass
        return None

    def refresh(self) -> object:
        """Refresh the workload itself."""
        return self.workload.refresh()

    def fits_with(self, others: Sequence[Workload]) -> bool:
        """Ask the workload itself."""
        return self.workload.fits_with(others)


def record(
    workload: Workload,
    slowdowns: Sequence[float],
    rounds: int,
    watch: Stopwatch,
    tell: Callable[[str], None],
    seed: int = 0,
) -> tuple[Arms, Order]:
    """Take rounds of a workload, of itself once more, and of it slowed down; seconds by arm, and who went when.

    An error of the workload passes through.
    """
    shares = {REFERENCE: 0.0, AGAIN: 0.0} | {label(slowdown): slowdown for slowdown in slowdowns}
    taken = Rounds(tuple(Slowed(name, workload, share, watch) for name, share in shares.items()))
    take_rounds(
        taken,
        Plan(rounds, math.inf, seed),
        watch,
        enough=lambda found: bool(found.errors),
        on_sample=lambda arm, number: tell(f"{arm.name}: round {number} of {rounds}"),
    )
    taken.raise_error(*shares)
    # All of them, also those that a verdict would not count: what is recorded is what the machine did.
    return {name: tuple(each[name].seconds for each in taken.taken) for name in shares}, tuple(taken.order)
