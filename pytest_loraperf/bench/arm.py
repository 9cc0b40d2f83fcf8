"""An arm: one strategy's pipeline, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from pytest_loraperf.backends.parking import Parked
from pytest_loraperf.backends.protocol import Recipe, StepRecord
from pytest_loraperf.limits import Counts
from pytest_loraperf.lora import Match
from pytest_loraperf.measure.ledger import Peak
from pytest_loraperf.measure.timeline import Timeline
from pytest_loraperf.strategies import StepKind


@dataclass
class Arm:
    """One strategy's pipeline, and what is known of it.

    ``pipeline`` is None while it is not on the device; ``waiting`` is the pipeline then, if it is in host memory,
    and ``parked`` where it is, kept for the next time.
    ``request_peaks`` are the bytes that a generation of each request needed, by its key;
    ``first_generation`` is the seconds of the very first one, which compiles and allocates; ``timeline`` is the
    memory over one that was only looked at, and ``counts`` what each request computes and moves, by the key of
    the request but for its seed, where those were asked for.
    """

    recipe: Recipe
    pipeline: Any = None
    waiting: Any = None
    parked: Parked | None = None
    setup: list[StepRecord] = field(default_factory=list)
    setup_peak: Peak = field(default_factory=Peak)
    runtime_peak: Peak = field(default_factory=Peak)
    request_peaks: dict[str, int] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()
    gains: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    first_call: dict[str, float] = field(default_factory=dict)
    first_generation: float | None = None
    timeline: Timeline | None = None
    counts: dict[str, Counts] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.recipe.strategy.name

    @property
    def resident(self) -> int:
        """Bytes that it holds once it is built."""
        return self.setup_peak.resident

    @property
    def alone(self) -> bool:
        """Whether it wants the device for itself: DiffSynth offloads by what the whole device has in use."""
        steps = self.recipe.strategy.steps
        return any(step.kind is StepKind.OFFLOAD and step.scheme not in ("stream", "group") for step in steps)

    @property
    def running(self) -> int:
        """Bytes that it needs once it is built."""
        return max(self.resident, self.runtime_peak.needed)

    @property
    def need(self) -> int:
        """Bytes that it needs at most, as far as known."""
        return max(self.setup_peak.needed, self.runtime_peak.needed)

    @property
    def compiles(self) -> bool:
        """Whether its first call compiles."""
        return self.recipe.strategy.has(StepKind.COMPILE)

    @property
    def rebuild_seconds(self) -> float:
        """Seconds until it is as it was if it is dropped: its set-up, and the generation that compiles it."""
        compiling = self.first_generation if self.compiles else None
        return sum(step.seconds for step in self.setup) + (compiling or 0.0)

    @property
    def shrinks(self) -> int:
        """By how many bytes it needs less once it is built."""
        return self.setup_peak.needed - self.running


@dataclass(frozen=True)
class Output:
    """A kept output: latents as float32 in host memory, and the image where there is a VAE.

    ``dtype`` is the name of that in which the latents were generated, such as ``bfloat16``.
    """

    latents: torch.Tensor
    image: Any = None
    dtype: str = "float32"
