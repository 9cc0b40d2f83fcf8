"""``loraperf calibrate``: how often the verdicts are wrong, on simulated noise and on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from pytest_loraperf import __version__
from pytest_loraperf.calibrate.calibration import Calibration, write_calibration
from pytest_loraperf.calibrate.noise import KINDS
from pytest_loraperf.calibrate.recorder import record
from pytest_loraperf.calibrate.recording import REFERENCE, Recording, read_recording, write_recording
from pytest_loraperf.calibrate.replay import SLOWDOWNS, recorded, replay_all, sequential, simulated
from pytest_loraperf.calibrate.table import lines
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.writable import check_writable

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Calibrating:
    """What ``loraperf calibrate`` is asked for.

    ``strategy`` is what is recorded, ``rounds`` how many of it, beside it slowed down by each of ``slowdowns``
    (0.05: 5 %); a verdict is given at most ``max_rounds``, and
    each noise, slowdown and limit is replayed ``replays`` times. ``record`` is the file to write the recording to,
    ``replay`` one to use instead of measuring, ``json`` that of the result.

    Raises:
        LoraperfError: a number is not positive, the rounds do not suffice, or two options contradict.
    """

    strategy: str = "fused"
    rounds: int = 100
    slowdowns: tuple[float, ...] = (0.02, 0.05, 0.10, 0.20)
    max_rounds: int = 30
    replays: int = 1000
    record: Path | None = None
    replay: Path | None = None
    json: Path | None = None
    simulated_only: bool = False

    def __post_init__(self) -> None:
        numbers = {"--rounds": self.rounds, "--max-rounds": self.max_rounds, "--replays": self.replays}
        for flag, value in numbers.items():
            if value < 1:
                raise LoraperfError(f"{flag} {value}: a positive whole number is allowed")
        if self.simulated_only and (self.record or self.replay):
            other = "--record" if self.record else "--replay"
            raise LoraperfError(f"--simulated-only and {other}: nothing is recorded or replayed; leave out one")
        if self.record and self.replay:
            raise LoraperfError("--record and --replay: a recording is made or used; leave out one")
        if self.measures and self.rounds < self.max_rounds:
            raise LoraperfError(
                f"--rounds {self.rounds}: a verdict of --max-rounds {self.max_rounds} needs as many; "
                f"record at least {self.max_rounds}"
            )

    @property
    def measures(self) -> bool:
        """Whether this machine is measured."""
        return not (self.simulated_only or self.replay)


def run_calibration(
    settings: Settings,
    command: str,
    asked: Calibrating,
    changes: Mapping[str, Any],
    tell: Tell,
    show: Callable[[str], None],
) -> Calibration:
    """Record or read a recording, replay it and the simulated noise, show the table and write the files.

    ``command`` is what a user would type to run it again; ``changes`` are those of the request. torch is imported
    only where this machine is measured.

    Raises:
        LoraperfError: the strategy, the model, the device, the request or a file cannot be used.
    """
    for path, flag in ((asked.record, "--record"), (asked.json, "--json")):
        if path is not None:
            check_writable(path, flag)
    recording = _recording(settings, asked, changes, tell)
    calibration = _calibrate(recording, command, asked, tell)
    tell("")
    for line in lines(calibration):
        show(line)
    if asked.json is not None:
        write_calibration(asked.json, calibration)
    return calibration


def _recording(settings: Settings, asked: Calibrating, changes: Mapping[str, Any], tell: Tell) -> Recording | None:
    if asked.replay is not None:
        found = read_recording(asked.replay)
        if found.rounds < asked.max_rounds:
            raise LoraperfError(
                f"recording {asked.replay}: {found.rounds} rounds, but a verdict takes up to {asked.max_rounds}; "
                f"record more, or use --max-rounds={found.rounds}"
            )
        return found
    if asked.simulated_only:
        return None
    made = measure(settings, asked, changes, tell)
    if asked.record is not None:
        write_recording(asked.record, made)
    return made


def measure(settings: Settings, asked: Calibrating, changes: Mapping[str, Any], tell: Tell) -> Recording:
    """Record one strategy's generation on this machine.

    Raises:
        LoraperfError: the strategy, the model, the device or the request is not understood.
    """
    session = Session(settings, tell=tell)
    session.strategies.find(asked.strategy)
    request = session.request().with_changes(**changes)

    import torch  # noqa: PLC0415 - a replay needs none

    from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch

    try:
        bench = session.bench()
        workload = StrategyWorkload(bench, asked.strategy, (request,))
        arms, order = record(workload, asked.slowdowns, asked.rounds, session.shop.watch, tell)
    finally:
        session.close()
    return Recording(
        what="one generation, beside itself and itself made slower on the CPU by a known share",
        machine=session.device.name,
        torch=torch.__version__,
        model=str(bench.model),
        request=request.to_json(),
        strategy=asked.strategy,
        arms=arms,
        order=order,
    )


def _calibrate(recording: Recording | None, command: str, asked: Calibrating, tell: Tell) -> Calibration:
    sources = [simulated(name, kind) for name, kind in KINDS.items()]
    if recording is not None:
        sources.append(recorded("recorded", recording))
    rule = sequential(asked.max_rounds)
    slowdowns = sorted({*SLOWDOWNS, *asked.slowdowns})
    tallies = replay_all(
        sources, rule=rule, rounds=asked.max_rounds, replays=asked.replays, tell=tell, slowdowns=slowdowns
    )
    return Calibration(
        plugin_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        max_rounds=asked.max_rounds,
        recorded=_where(recording) if recording else None,
        tallies=tuple(tallies),
    )


def _where(recording: Recording) -> str:
    request = recording.request
    known = {"width", "height", "steps"} <= request.keys()
    size = f"{request['width']}×{request['height']}, {request['steps']} steps" if known else "a request"
    return (
        f"{recording.rounds} rounds of {recording.strategy} on {recording.machine}, torch {recording.torch}, "
        f"{recording.model}, {size}; arms {', '.join(_took(recording))}; the others, and any at or within a "
        "limit, are equal arms, scaled"
    )


def _took(recording: Recording) -> Iterator[str]:
    """Yield each arm and what it really took, the median over the rounds of its ratio to the reference."""
    reference = recording.arms[REFERENCE]
    for name, times in recording.arms.items():
        ratio = median(time / base for time, base in zip(times, reference, strict=True))
        yield name if name == REFERENCE else f"{name} ({ratio:.3f}×)"
