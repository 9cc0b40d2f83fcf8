"""What one run knows: the device, the benches, the measurements and the verdicts. Used by pytest and by the CLI.

torch is imported when the first pipeline, workload or budget needs it, never before; and this module is imported
in every pytest run, so what makes many classes waits too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_loraperf.errors import DeviceError, said
from pytest_loraperf.options import Settings
from pytest_loraperf.strategies import Strategies
from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_loraperf.backends.protocol import Choices
    from pytest_loraperf.baseline.stored import Stored
    from pytest_loraperf.bench.bench import Bench, Workshop
    from pytest_loraperf.bench.workloads import CallableWorkload
    from pytest_loraperf.forecast.forecast import Forecast, Forecaster
    from pytest_loraperf.gpu.admission import Admission
    from pytest_loraperf.gpu.cap import Cap
    from pytest_loraperf.gpu.device import Device
    from pytest_loraperf.gpu.lock import DeviceLock
    from pytest_loraperf.limits import Rates
    from pytest_loraperf.measure.leaks import Leaks
    from pytest_loraperf.measure.ledger import Charge, Ledger
    from pytest_loraperf.measure.monitor import Monitor
    from pytest_loraperf.measure.pairs import Measurer
    from pytest_loraperf.measure.rounds import Workload
    from pytest_loraperf.models import ModelSpec
    from pytest_loraperf.request import Request
    from pytest_loraperf.run.journal import Journal
    from pytest_loraperf.specs import Gates
    from pytest_loraperf.verdict import Verdict

FULL_MODEL_NEEDS = 44 * 2**30
"""Bytes of VRAM that the full synthetic model needs in bf16 with its LoRA attached, with room."""


@dataclass(eq=False, repr=False)  # what nobody asks for costs start-up
class TestRecord:
    """One test as it runs: what it asks for, what it called, what it was charged, what was found.

    One that ``only_reads`` source uses no memory of a GPU: no budget is held against it. ``foresee`` makes the
    ``forecast`` of its pipeline where the test did not call it. ``who`` is what messages call it.
    """

    __test__ = False  # its name starts as a test class's does

    nodeid: str
    gates: Gates | None = None
    only_reads: bool = False
    charge: Charge | None = None
    bench: Bench | None = None
    strategy: str | None = None
    requests: list[Request] = field(default_factory=list)
    workloads: dict[str, CallableWorkload] = field(default_factory=dict)
    raced: list[CallableWorkload] = field(default_factory=list)
    forecast: Forecast | None = None
    foresee: Callable[[], None] | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    who: str = "the test"

    @property
    def subject(self) -> Workload | None:
        """What the gates of this test measure: its pipeline's generations, else its first workload."""
        from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch

        if self.bench is not None and self.strategy is not None and self.requests:
            return StrategyWorkload(self.bench, self.strategy, tuple(self.requests))
        return next(iter(self.workloads.values()), None)

    @property
    def callables(self) -> tuple[str, ...]:
        """The keys of the callables that the test gave to be measured."""
        return tuple(workload.key for workload in (*self.workloads.values(), *self.raced))

    def let_go(self) -> None:
        """Let go of what the test gave to be measured: closures hold models."""
        for workload in (*self.workloads.values(), *self.raced):
            workload.let_go()


@dataclass(eq=False, repr=False)
class Session:
    """One run.

    ``tell`` takes lines of progress; tests inject ``clock``, which returns seconds; ``command`` is what a user
    would type to run it again; ``rates`` are what the device was measured to do in a second, where that was asked
    for.
    """

    settings: Settings
    strategies: Strategies = field(default_factory=Strategies)
    tell: Callable[[str], None] = lambda _line: None
    clock: Callable[[], float] | None = None
    command: str = ""
    records: dict[str, TestRecord] = field(default_factory=dict)
    benches: dict[tuple[object, ...], Bench] = field(default_factory=dict)
    forecasts: dict[tuple[object, ...], Forecast] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    stored: Stored | None = None
    journal: Journal | None = None
    cap: Cap | None = None
    rates: Rates | None = None

    @cached_property
    def device(self) -> Device:
        """The device of ``--loraperf-device``.

        Raises:
            DeviceError: it is not there, or broken.
        """
        from pytest_loraperf.gpu.device import resolve_device  # noqa: PLC0415 - imports torch

        return resolve_device(self.settings.device)

    @cached_property
    def ledger(self) -> Ledger:
        """Who holds how much memory."""
        from pytest_loraperf.measure.ledger import Ledger  # noqa: PLC0415 - imports torch
        from pytest_loraperf.measure.memory import meter_for  # noqa: PLC0415

        return Ledger(meter_for(self.device))

    @cached_property
    def leaks(self) -> Leaks:
        """What tests left behind."""
        from pytest_loraperf.measure.leaks import Leaks  # noqa: PLC0415 - imports torch

        return Leaks(self.ledger)

    @cached_property
    def monitor(self) -> Monitor:
        """Watches the GPU while samples are taken."""
        from pytest_loraperf.measure.monitor import Monitor  # noqa: PLC0415 - imports torch

        return Monitor(self.device)

    @property
    def measured(self) -> bool:
        """Whether any sample was asked for; looking at the measurer itself would import torch."""
        return "measurer" in self.__dict__

    @property
    def progress(self) -> object:
        """What is another once there is more to tell of this run; None where nothing was measured or judged."""
        arms = [
            (arm.name, arm.error, len(arm.setup)) for bench in self.benches.values() for arm in bench.arms.values()
        ]
        rounds = sum(len(rounds.taken) for rounds in self.measurer) if self.measured else 0
        verdicts = [(each.nodeid, len(each.verdicts)) for each in self.records.values() if each.verdicts]
        told = (arms, rounds, verdicts, len(self.forecasts))
        return (*told, len(self.notes)) if any(told) else None

    @cached_property
    def measurer(self) -> Measurer:
        """Takes samples on this device."""
        from pytest_loraperf.measure.pairs import Measurer  # noqa: PLC0415 - imports torch
        from pytest_loraperf.measure.timing import Plan, Stopwatch  # noqa: PLC0415

        watch = Stopwatch(self.clock or perf_counter, self.device.synchronize, self.device.gpu_mark)
        plan = Plan(self.settings.rounds, self.settings.max_seconds)
        return Measurer(plan, watch, self.tell, self.monitor, self.lock.held)

    @cached_property
    def lock(self) -> DeviceLock:
        """Keeps other processes from using the device while this one measures or builds."""
        from pytest_loraperf.gpu.lock import DeviceLock  # noqa: PLC0415 - start-up

        return DeviceLock(self.device.uuid or self.device.torch_name, self.tell, self._note)

    @cached_property
    def admission(self) -> Admission | None:
        """The queue of tests for the GPU, where workers share it; None on the CPU.

        Raises:
            DeviceError: the device is not there, or broken.
        """
        if not self.device.is_cuda:
            return None
        from pytest_loraperf.gpu.admission import Admission  # noqa: PLC0415 - only where a GPU is shared

        return Admission(self.device.uuid or self.device.torch_name, self.device.total, self.tell, self._note)

    def check_card(self) -> None:
        """Check that a card is named, and that there is a GPU to play it.

        Raises:
            DeviceError: There is not.
        """
        with self._for_card():
            self._card_size()

    def play_card(self) -> None:
        """Let this process have no more of its GPU than ``--gpu-budget``, until the session is closed.

        Raises:
            DeviceError: There is no GPU to play it, or none that could.
        """
        with self._for_card():
            size = self._card_size()
            from pytest_loraperf.gpu.cap import Cap  # noqa: PLC0415 - imports torch

            cap = Cap(self.device, size, self.ledger.meter.overhead)
            cap.enter()
        self.cap = cap

    @contextmanager
    def _for_card(self) -> Iterator[None]:
        try:
            yield
        except DeviceError as error:
            raise DeviceError(f"--gpu-budget-mode=cap: {error}") from error

    def _card_size(self) -> int:
        if self.settings.gpu_budget is None:
            raise DeviceError("no card is named; add its size, such as --gpu-budget=14GB")
        if self.settings.forecast:
            raise DeviceError("a forecast uses no GPU; leave out one of --gpu-budget-mode and --loraperf-forecast")
        if not self.device.is_cuda:
            raise DeviceError(
                "no CUDA device here, and a small card is played by a larger one; "
                "leave it out, or hold the budget by --loraperf-forecast"
            )
        return self.settings.gpu_budget

    def start_test_on_card(self) -> None:
        """Give the next test the small card for itself."""
        if self.cap is not None:
            self.vacate()
            self.cap.adjust()

    @property
    def kept(self) -> int:
        """Bytes that pipelines of earlier tests hold on the device."""
        return sum(self.ledger.resident.values()) if "ledger" in self.__dict__ else 0

    def vacate(self) -> None:
        """Take pipelines and unused cache off the device."""
        for bench in self.benches.values():
            bench.vacate()
        if "ledger" in self.__dict__:
            self.ledger.meter.level()

    def _note(self, line: str) -> None:
        self.notes[line] = None

    @cached_property
    def shop(self) -> Workshop:
        """What all benches share.

        Raises:
            LoraperfError: the device or the backend cannot be used.
        """
        from pytest_loraperf.backends import load_backend  # noqa: PLC0415 - imports torch
        from pytest_loraperf.bench.bench import Workshop  # noqa: PLC0415

        return Workshop(
            device=self.device,
            backend=load_backend(self.device, self.settings.backend),
            strategies=self.strategies,
            choices=self._choices,
            ledger=self.ledger,
            watch=self.measurer.watch,
            tell=self.tell,
            alone=self.lock.held,
        )

    @property
    def _choices(self) -> Choices:
        from pytest_loraperf.backends.protocol import Choices  # noqa: PLC0415 - imports torch

        given = self.settings
        return Choices(given.scheme, given.compile, given.offload, given.offload_limit, given.gpu_budget)

    def model(self, value: object = None) -> ModelSpec:
        """Return the model that a fixture or option names; ``auto`` is the full one where it fits.

        Raises:
            ModelError: the value names no model.
        """
        from pytest_loraperf.models import Synthetic, parse_model  # noqa: PLC0415 - start-up

        wanted = self.settings.model if value is None else value
        if wanted != "auto":
            return parse_model(wanted)
        fits = self.settings.forecast or self.device.total >= FULL_MODEL_NEEDS
        return Synthetic("full" if fits else "tiny")

    def bench(self, model: object = None, adapters: Sequence[str | Path] | None = None) -> Bench:
        """Return the bench of this model and these adapters, the same one each time.

        Raises:
            LoraperfError: the model, the device or an adapter's source is not understood.
        """
        from pytest_loraperf.bench.bench import Bench  # noqa: PLC0415 - imports torch

        spec = self.model(model)
        files = self.settings.adapters if adapters is None else tuple(adapters)
        key = (spec, *map(str, files))
        if key not in self.benches:
            self.benches[key] = Bench(self.shop, spec, files)
        return self.benches[key]

    @cached_property
    def forecaster(self) -> Forecaster:
        """Forecasts what strategies need of a card that is not there."""
        from pytest_loraperf.forecast.card import H100  # noqa: PLC0415
        from pytest_loraperf.forecast.forecast import Forecaster  # noqa: PLC0415

        return Forecaster(H100, self.strategies, self._choices, self.tell, self.settings.backend)

    def forecast(self, name: str, model: ModelSpec, adapters: Sequence[str | Path], request: Request) -> Forecast:
        """Return the forecast of a strategy for a request, made once.

        Raises:
            LoraperfError: the model, an adapter or the strategy is not understood.
        """
        key = (name, model, tuple(map(str, adapters)), request.key)
        if key not in self.forecasts:
            self.forecasts[key] = self.forecaster.forecast(name, model, adapters, request)
        return self.forecasts[key]

    def request(self, model: object = None) -> Request:
        """Return the request that a model is called with unless a test says otherwise.

        A model of the user's own is called at full size where there is a card, or one is forecast: on a CPU that
        would take minutes, and its figures would count for nothing.

        Raises:
            LoraperfError: the value names no model, or the device cannot be used.
        """
        from pytest_loraperf.models import Synthetic  # noqa: PLC0415 - start-up
        from pytest_loraperf.registry import PIPELINES  # noqa: PLC0415 - start-up
        from pytest_loraperf.request import FULL_REQUEST, TINY_REQUEST  # noqa: PLC0415

        spec = self.model(model)
        if not isinstance(spec, Synthetic):
            return FULL_REQUEST if self.settings.forecast or self.device.is_cuda else TINY_REQUEST
        request = TINY_REQUEST if spec.size == "tiny" else FULL_REQUEST
        return request.with_changes(extra=PIPELINES[spec.pipeline])

    def why_not(self, gates: Gates | None, *, pipeline: bool = False) -> str | None:
        """Say why ``needs_gpu`` skips a test on this device, or None.

        A test with a ``pipeline`` of ours needs no GPU where that is forecast: the card of the forecast counts.
        """
        for needs in gates.needs if gates else ():
            foreseen = pipeline and self.settings.forecast
            device = self.forecaster.card.device() if foreseen else self.device
            if not device.is_cuda:
                return "needs_gpu: no CUDA device"
            if needs.vram is not None and device.total < needs.vram:
                have, want = format_size(device.total), format_size(needs.vram)
                return f"needs_gpu: {device.name} has {have} of VRAM, the test needs {want}"
            if needs.capability is not None and (device.capability or (0, 0)) < needs.capability:
                have, want = (".".join(map(str, c or ())) for c in (device.capability, needs.capability))
                return f"needs_gpu: {device.name} has compute capability {have}, the test needs {want}"
        return None

    def watch_phase(self, record: TestRecord, phase: str) -> AbstractContextManager[None]:
        """Charge the memory of a phase to the test, where a budget asks for it."""
        gates = record.gates
        budget = self.settings.gpu_budget is not None or (gates is not None and gates.vram)
        if record.only_reads or self.settings.forecast:
            return nullcontext()
        if not budget:
            leaks = self.settings.leak_limit is not None or (gates is not None and gates.leak)
            return self.ledger.meter.watching() if leaks else nullcontext()
        from pytest_loraperf.measure.ledger import Charge  # noqa: PLC0415 - imports torch

        record.charge = record.charge or Charge()
        return self.ledger.test_phase(record.charge, phase)

    def has_gates(self, record: TestRecord) -> bool:
        """Whether there is anything to judge of a test."""
        built = record.strategy is not None
        return built or record.charge is not None or (record.gates is not None and record.gates.timed)

    def fails(self, verdict: Verdict) -> bool:
        """Whether a verdict fails its test; ``--loraperf-inconclusive=warn`` lets "cannot tell" pass."""
        if verdict.status == "INCONCLUSIVE" and self.settings.inconclusive == "warn":
            self.notes[f"warning: {verdict.message}"] = None
            return False
        return not verdict.passed

    def close(self) -> None:
        """Give back what the benches hold; a device that was lost meanwhile is noted."""
        for bench in self.benches.values():
            try:
                bench.close()
            except Exception as error:  # noqa: BLE001 - whatever a broken device raises, the results are there
                self._note(
                    f"warning: the pipelines of {bench.model} could not be given back: {said(error)}; "
                    "look whether the device still works (loraperf doctor)"
                )
        if self.cap is not None:
            self.cap.close()
