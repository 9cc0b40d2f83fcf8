"""What a backend does: build a pipeline, carry out steps on it, generate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from pytest_loraperf.backends.parking import Parked
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import Match
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.models import ModelSpec
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, Strategy


@dataclass(frozen=True)
class StepEffect:
    """What a step changed: ``layers`` of ``total`` candidates, and a note for the reader."""

    layers: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Generation:
    """What one request gave.

    ``latents`` has the pipeline's own shape, (1, 16, height / 8, width / 8) for Qwen-Image. A backend gives it in
    the pipeline's dtype, a fixture as float32 in host memory. ``image`` is a PIL image, the list of its frames
    where the pipeline makes videos, and None where it has no VAE.
    """

    latents: Tensor
    image: Any = None


@dataclass(frozen=True)
class Recipe:
    """A strategy as it is carried out on this machine: schemes chosen, compile added or taken away."""

    strategy: Strategy
    scheme: str | None = None
    scheme_reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """What the user left to the backend or decided.

    These are ``--loraperf-scheme``, ``--loraperf-compile``, ``--loraperf-offload``, ``--loraperf-offload-limit``
    and, as ``card``, ``--gpu-budget``. Sizes are in bytes.
    """

    scheme: str = "auto"
    compile: str = "auto"
    offload: str = "auto"
    offload_limit: int | None = None
    card: int | None = None


class Backend(Protocol):
    """How the steps are carried out for one library. A pipeline is the library's own object."""

    name: str
    version: str

    def recipe(self, strategy: Strategy, device: Device, choices: Choices) -> Recipe:
        """Decide how a strategy is carried out on this device."""

    def build(self, model: ModelSpec, device: Device, *, on_cpu: bool) -> Any:
        """Return a pipeline that computes on the device; ``on_cpu`` leaves its weights in host memory.

        Such weights may have no values until the step that offloads them.
        """

    def lora_shapes(self, pipeline: Any) -> dict[str, tuple[int, int]]:
        """Return (out_features, in_features) of each layer that may take a LoRA, by name."""

    def lora_names(self, pipeline: Any, tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a LoRA file's tensors as the library's own conversion names them; it may fuse or split layers."""

    def lora_loaded(self, pipeline: Any, tensors: dict[str, Tensor]) -> Collection[str] | None:
        """Return the layers that the library's own loading of such a file changes; None: it is not known."""

    def lora_targets(self, pipeline: Any) -> list[str]:
        """Return the layers that a synthetic adapter is made for: those of the repeated blocks."""

    def apply(self, pipeline: Any, step: Step, adapters: Sequence[Match]) -> StepEffect:
        """Carry out one step in place."""

    def take_base(self, pipeline: Any, effect: EffectProbe) -> None:
        """Show the probe the layers as they are before any step."""

    def effect_gains(self, pipeline: Any, effect: EffectProbe) -> dict[str, float]:
        """Return the effect gain of each layer of a pipeline that is built."""

    def check(self, pipeline: Any, request: Request) -> None:
        """Refuse a request that the library would run as another one, or not at all.

        Raises:
            LoraperfError: the message says what is allowed.
        """

    def generate(self, pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run one generation; ``tick`` is called where a denoising step begins, and after the last."""

    def park(self, pipeline: Any, kept: Parked | None = None) -> Parked:
        """Move what the pipeline holds on the device into host memory: that of ``kept``, an earlier parking.

        Raises:
            RuntimeError: it cannot be moved.
        """

    def unpark(self, pipeline: Any, parked: Parked) -> None:
        """Move it back to where it was, in place.

        Raises:
            RuntimeError: the device has no room.
        """


@dataclass
class StepRecord:
    """One step as it was carried out: seconds, layers, and the peak of memory in bytes."""

    step: Step | None
    seconds: float
    effect: StepEffect = field(default_factory=lambda: StepEffect(0, 0))
    peak: int = 0

    @property
    def name(self) -> str:
        """The step's name; building the model is the first."""
        return "build" if self.step is None else str(self.step)
