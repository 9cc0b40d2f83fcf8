"""The bench: one model and its adapters, the pipelines built from them, and what was measured of each.

It knows nothing of pytest; the plugin and the command line both work with it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path

import torch

from pytest_loraperf.backends.parking import Parked, parking_seconds
from pytest_loraperf.backends.protocol import (
    Backend,
    Choices,
    Generation,
    Recipe,
    StepEffect,
    StepRecord,
)
from pytest_loraperf.bench.adapters import Adapters
from pytest_loraperf.bench.arm import Arm, Output
from pytest_loraperf.errors import LoraperfError, StrategyError, clear_frames, out_of_memory
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.host import spare_memory
from pytest_loraperf.limits import Counts
from pytest_loraperf.lora.effect import EffectProbe
from pytest_loraperf.measure.ledger import Ledger, Peak
from pytest_loraperf.measure.operations import OperationCounter
from pytest_loraperf.measure.timeline import MemoryWatch, Timeline
from pytest_loraperf.measure.timing import NO_TICK, Stopwatch, Tick
from pytest_loraperf.models import ModelSpec
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, StepKind, Strategies
from pytest_loraperf.verdict.equivalence import Distances

VRAM_MARGIN = 2**30
"""Bytes of the device left free when deciding whether two arms fit together (context, fragmentation)."""
HOST_MARGIN = 2**32
"""Bytes of host memory that parking leaves free: what is pinned cannot be swapped out."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """What all benches of one run share.

    ``alone`` keeps other processes that measure from meeting a build or a generation of this one. ``benches`` are
    all of them, the one last used at the end.
    """

    device: Device
    backend: Backend
    strategies: Strategies
    choices: Choices
    ledger: Ledger
    watch: Stopwatch
    tell: Tell
    spare_memory: Callable[[], int] = spare_memory
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    benches: list[Bench] = field(default_factory=list)


class Bench:
    """Builds arms when they are asked for and keeps those that fit; others are parked, or dropped and rebuilt.

    Those of the other benches, of other models or adapters, make room first.
    """

    def __init__(self, shop: Workshop, model: ModelSpec, adapters: Sequence[str | Path] = ()) -> None:
        self.shop = shop
        self.model = model
        self.adapters = self._read_by(adapters)
        self.arms: dict[str, Arm] = {}
        self.comparisons: dict[tuple[str, str], Distances] = {}
        self._outputs: dict[tuple[str, str], Output] = {}
        self._effect: EffectProbe | None = None
        shop.benches.append(self)

    def _read_by(self, named: Sequence[str | Path]) -> Adapters:
        return Adapters(self.model, named, self.shop.backend, self.shop.device.torch_name)

    def arm(self, name: str) -> Arm:
        """Return the arm of this strategy, built.

        Raises:
            LoraperfError: the strategy is unknown, or it cannot be built; the second time, at once.
        """
        arm = self.arms.get(name) or self._new_arm(name)
        if arm.error is not None:
            raise LoraperfError(arm.error)
        # Last used is last in the dict, and first to stay.
        self.arms.pop(name, None)
        self.arms[name] = arm
        self.shop.benches.remove(self)
        self.shop.benches.append(self)
        with self.shop.alone():
            if arm.pipeline is None or arm.alone:
                self._make_room(arm, keep=())
            if arm.waiting is not None and arm.parked is not None:
                self._unpark(arm, arm.parked)
            if arm.pipeline is None:
                self._build(arm)
        return arm

    def together(self, names: Sequence[str]) -> bool:
        """Put all of these on the device at once if they fit; False if they do not."""
        arms = {name: self.arms.get(name) for name in dict.fromkeys(names)}
        for name, arm in arms.items():
            if arm is None or not arm.setup_peak.needed:
                arms[name] = self.arm(name)  # built once, to know what it needs
        known = [arm for arm in arms.values() if arm is not None]
        if self.shop.device.is_cuda and not self._fit(known):
            return False
        for arm in sorted(known, key=attrgetter("shrinks"), reverse=True):
            if arm.pipeline is None:
                self._make_room(arm, keep=tuple(arms))
            self.arm(arm.name)
        return True

    def _fit(self, arms: Sequence[Arm]) -> bool:
        if any(arm.alone for arm in arms):
            return False
        room = self.shop.device.total - VRAM_MARGIN
        held = 0
        # What shrinks most is built first, while there is room.
        for arm in sorted(arms, key=attrgetter("shrinks"), reverse=True):
            if held + arm.setup_peak.needed > room:
                return False
            held += arm.running
        return held <= room

    def check(self, name: str, request: Request) -> None:
        """Refuse a request that the library would run as another one, or not at all.

        Raises:
            LoraperfError: it is one, or the pipeline cannot be built.
        """
        self.shop.backend.check(self.arm(name).pipeline, request)

    def generate(self, name: str, request: Request) -> Generation:
        """Run one generation, its memory measured.

        Raises:
            LoraperfError: the pipeline cannot be built, or memory ran out.
        """
        with self.shop.alone():
            try:
                return self._generate(name, request)
            except torch.OutOfMemoryError as error:
                clear_frames(error)
                raise LoraperfError(
                    f"strategy {name}: out of memory while it ran: {out_of_memory(error)}"
                ) from error

    def runtime_peak_of(self, name: str, request: Request) -> int:
        """Run one generation, and return the bytes that it needed at most, whatever others needed.

        Raises:
            LoraperfError: the pipeline cannot be built, or memory ran out.
        """
        arm = self.arm(name)
        others, arm.runtime_peak = arm.runtime_peak, Peak()
        try:
            self.generate(name, request)
            return arm.runtime_peak.needed
        finally:
            arm.runtime_peak = others

    def _generate(self, name: str, request: Request) -> Generation:
        arm = self.arm(name)
        made: list[Generation] = []
        peak = Peak()
        try:
            with self.shop.ledger.operation(self._holder(name), peak):
                seconds = self.shop.watch.time(lambda: made.append(self.run(name, request)))
        finally:
            arm.runtime_peak.take_in(peak)
            arm.request_peaks[request.key] = max(peak.needed, arm.request_peaks.get(request.key, 0))
        arm.first_call.setdefault(request.key, seconds)
        arm.first_generation = arm.first_generation or seconds
        generation = made[0]
        self._outputs[name, request.key] = kept = Output(
            generation.latents.detach().to("cpu", torch.float32),
            generation.image,
            str(generation.latents.dtype).removeprefix("torch."),
        )
        return Generation(kept.latents, kept.image)

    def run(self, name: str, request: Request, tick: Tick = NO_TICK) -> Generation:
        """Run one generation of an arm that is on the bench, and nothing else: this is what is timed."""
        return self.shop.backend.generate(self.arms[name].pipeline, request, tick)

    def run_aside(self, name: str, request: Request) -> None:
        """Run one generation that only looks at how memory is used: no arm and no test is charged for it."""
        with self.shop.alone(), self.shop.ledger.aside(self._holder(name)):
            self.run(name, request)

    def follow(self, name: str, request: Request) -> Timeline:
        """Run one generation that only looks at how its memory changes, and return that.

        A compiled arm is looked at as its steps begin only: what looks at calls would be compiled too.

        Raises:
            LoraperfError: the pipeline cannot be built.
        """
        arm, holder, ledger = self.arm(name), self._holder(name), self.shop.ledger
        with self.shop.alone(), ledger.aside(holder):
            watch = MemoryWatch(ledger.meter, ledger.foreign(holder), calls=not arm.compiles)
            with watch.looking():
                self.run(name, request, watch.tick)
        return watch.timeline

    def count(self, name: str, request: Request) -> Counts:
        """Run one generation, compiled or not as it was written, that only counts what it computes and moves.

        Raises:
            LoraperfError: the pipeline cannot be built.
        """
        self.arm(name)
        counter = OperationCounter()
        with self.shop.alone(), self.shop.ledger.aside(self._holder(name)), counter.counting():
            self.run(name, request, counter.tick)
        return counter.counts

    def output(self, name: str, request: Request) -> Output:
        """Return what this strategy gives for a request, generated at most once."""
        if (name, request.key) not in self._outputs:
            self.shop.tell(f"{name}: generating the output to compare with")
            self.generate(name, request)
        return self._outputs[name, request.key]

    def release(self, name: str) -> None:
        """Let go of the pipeline of an arm that is not needed again; what is known of it stays."""
        arm = self.arms.get(name)
        if arm is not None and (arm.pipeline is not None or arm.waiting is not None):
            self._drop(arm)

    def vacate(self) -> None:
        """Take every pipeline off the device, for the tests of other processes."""
        if any(arm.pipeline is not None for arm in self.arms.values()):
            with self.shop.alone():
                for arm in self.arms.values():
                    self.park(arm)

    def close(self) -> None:
        """Give everything back."""
        for name in self.arms:
            self.release(name)
        self.adapters.close()

    def _new_arm(self, name: str) -> Arm:
        shop, strategy = self.shop, self.shop.strategies.find(name)
        try:
            arm = Arm(shop.backend.recipe(strategy, shop.device, shop.choices))
        except LoraperfError as error:
            arm = Arm(Recipe(strategy), error=str(error))
        self.arms[name] = arm
        return arm

    def _holder(self, name: str) -> str:
        return f"{id(self)}:{name}"

    def _make_room(self, arm: Arm, keep: Sequence[str]) -> None:
        """Take the least recently used arms off the device until this one fits."""
        if not self.shop.device.is_cuda:
            return
        others = [
            (bench, other)
            for bench in self.shop.benches
            for other in bench.arms.values()
            if other is not arm and not (bench is self and other.name in keep)
        ]
        if arm.alone:
            for bench, other in others:
                bench.park(other)
            return
        need = arm.running if arm.waiting is not None else arm.need
        need = need or self._largest_need() or self.shop.device.total
        for bench, other in others:
            if need <= self.shop.ledger.meter.free() - VRAM_MARGIN:
                return
            bench.park(other)

    def _largest_need(self) -> int:
        return max((arm.need for arm in self.arms.values()), default=0)

    def park(self, arm: Arm) -> None:
        """Take an arm off the device: into host memory if that is quicker than to build it again, else drop it."""
        if arm.pipeline is None:
            return
        if not self._worth_parking(arm):
            self._drop(arm)
            return
        self.shop.tell(f"{arm.name}: parking it in host memory")
        try:
            with self.shop.ledger.release(self._holder(arm.name)):
                arm.parked = self.shop.backend.park(arm.pipeline, arm.parked)
                arm.waiting, arm.pipeline = arm.pipeline, None
        except RuntimeError as error:
            self._drop(arm, error)

    def _worth_parking(self, arm: Arm) -> bool:
        size = max(arm.resident, self.shop.ledger.resident.get(self._holder(arm.name), 0))
        if arm.rebuild_seconds <= parking_seconds(size, pinned=arm.parked is not None):
            return False
        # Whichever arm is built next may be built in host memory, to be offloaded.
        room = self.shop.spare_memory() - HOST_MARGIN - self._largest_need()
        return arm.parked is not None or size <= room

    def _unpark(self, arm: Arm, parked: Parked) -> None:
        """Bring an arm back; one that does not come back is dropped, with room made to build it."""
        self.shop.tell(f"{arm.name}: bringing it back from host memory")
        try:
            with self.shop.ledger.operation(self._holder(arm.name), Peak()):
                self.shop.backend.unpark(arm.waiting, parked)
        except RuntimeError as error:
            self._drop(arm, error)
            self._make_room(arm, keep=())
        else:
            arm.pipeline, arm.waiting = arm.waiting, None

    def _drop(self, arm: Arm, error: BaseException | None = None) -> None:
        """Let go of a pipeline, of its host memory, and of what the frames of an error hold of it."""
        if arm.compiles:
            arm.first_call.clear()
        holder, meter = self._holder(arm.name), self.shop.ledger.meter
        with self.shop.ledger.release(holder):
            left = meter.allocated() - self.shop.ledger.live_of(holder)
            in_host_memory = arm.waiting is not None or arm.recipe.strategy.has(StepKind.OFFLOAD)
            arm.pipeline = arm.waiting = arm.parked = None
            clear_frames(error)
            gc.collect(1)
            # All of it takes most of a second, with the modules that diffusion libraries import.
            if in_host_memory or meter.allocated() > left:
                gc.collect()

    def _build(self, arm: Arm) -> None:
        try:
            self._build_steps(arm)
        except LoraperfError as error:
            self._failed(arm, str(error), error)
            raise
        except torch.OutOfMemoryError as error:
            self._failed(
                arm, f"strategy {arm.name}: out of memory while it was built: {out_of_memory(error)}", error
            )
            raise LoraperfError(str(arm.error)) from error
        except BaseException as error:
            # Also a time-out, or Ctrl-C: what is half built must not be taken for whole.
            self._drop(arm, error)
            raise

    def _failed(self, arm: Arm, why: str, error: BaseException) -> None:
        arm.error = why
        self._drop(arm, error)

    def _build_steps(self, arm: Arm) -> None:
        shop, strategy = self.shop, arm.recipe.strategy
        arm.setup = []
        on_cpu = strategy.has(StepKind.OFFLOAD)

        def build() -> StepEffect:
            arm.pipeline = shop.backend.build(self.model, shop.device, on_cpu=on_cpu)
            return StepEffect(0, 0)

        self._step(arm, None, build)
        if strategy.uses_lora:
            self._match(arm)
        for step in strategy.steps:
            self._step(arm, step, partial(shop.backend.apply, arm.pipeline, step, arm.matches))
        if self._effect is not None and not arm.gains:
            self.shop.tell(f"{arm.name}: looking for the LoRA in its layers")
            with self.shop.ledger.aside(self._holder("effect")):
                arm.gains = shop.backend.effect_gains(arm.pipeline, self._effect)

    def _step(self, arm: Arm, step: Step | None, carry_out: Callable[[], StepEffect]) -> None:
        """Carry out one step, timed, its memory measured and its effect checked."""
        self.shop.tell(f"{arm.name}: {step or f'building {self.model}'}")
        effects: list[StepEffect] = []
        peak = Peak()
        with self.shop.ledger.operation(self._holder(arm.name), peak):
            seconds = self.shop.watch.time(lambda: effects.append(carry_out()))
        effect = effects[0]
        if step is not None and effect.layers == 0:
            raise StrategyError(
                f"strategy {arm.name}, step {len(arm.setup)} ({step}): changed none of {effect.total} layers; "
                "a step without effect is an error: check what the model and the steps before it left to do"
            )
        arm.setup.append(StepRecord(step, seconds, effect, peak.needed))
        arm.setup_peak.needed = max(arm.setup_peak.needed, peak.needed)
        arm.setup_peak.allocated = max(arm.setup_peak.allocated, peak.allocated)
        arm.setup_peak.resident = peak.resident

    def _match(self, arm: Arm) -> None:
        """Find the layers that the LoRA is for, and see them without it, once: they are the same in every arm.

        No arm is charged for it: the adapters are read for the first one, and serve all.
        """
        with self.shop.ledger.aside(self._holder("effect")):
            arm.matches = self.adapters.match(arm.pipeline)
            if self._effect is None:
                self._effect = self._base_of(arm)

    def _base_of(self, arm: Arm) -> EffectProbe | None:
        effect = EffectProbe(arm.matches)
        self.shop.backend.take_base(arm.pipeline, effect)
        return effect
