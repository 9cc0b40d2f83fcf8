"""``loraperf bench``: the strategy table outside pytest, by the same benches and gates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_loraperf.advise.choose import advice_lines, choices
from pytest_loraperf.advise.code import BACKEND, Lora, Setting, code_for
from pytest_loraperf.backends.protocol import Generation
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.bench.workloads import StrategyWorkload
from pytest_loraperf.commands.progress import Bar
from pytest_loraperf.commands.sweep import Sweep, images, take_sweeps
from pytest_loraperf.errors import LoraperfError, said
from pytest_loraperf.options import Settings
from pytest_loraperf.report.results import Results, SweepPoint
from pytest_loraperf.report.sweep import sweep_lines
from pytest_loraperf.report.terminal import notes, summary
from pytest_loraperf.request import Request
from pytest_loraperf.run.gathering import gather
from pytest_loraperf.run.judging import judge
from pytest_loraperf.session import FULL_MODEL_NEEDS, Session, TestRecord
from pytest_loraperf.specs import Gates, LoraEffect, OutputEquivalent
from pytest_loraperf.strategies import REFERENCE, Strategy
from pytest_loraperf.units import format_size
from pytest_loraperf.verdict.equivalence import NOT_FINITE

PLAIN = ("DiffSynth", "ComfyUI")
"""The conventions of adapters whose keys DiffSynth's own loader reads."""


@dataclass(frozen=True)
class Benchmarking:
    """What is measured: names of strategies, changes of the request, images a sample, and the sweeps after it.

    ``advise`` is whether the recommendation is shown, with its code.
    """

    strategies: str = "all"
    changes: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    sweeps: tuple[Sweep, ...] = ()
    advise: bool = False

    def requests(self, base: Request) -> Iterator[Request]:
        """Yield each request that is measured."""
        yield from images(base, self.batch)
        for sweep in self.sweeps:
            for value in sweep.values:
                yield from sweep.requests(base, self.batch, value)


def run_benchmark(
    settings: Settings,
    command: str,
    asked: Benchmarking,
    show: Callable[[str], None],
    write: Callable[[Results], None],
) -> Results:
    """Measure the named strategies against the reference, sweep, show the tables, and write what was found.

    What was measured before Ctrl-C or SIGTERM is shown and written too. A strategy that cannot be built is an
    error in its row; the others are measured all the same.

    Raises:
        LoraperfError: a name, the model, the device, an adapter or the request is not understood.
    """
    session = Session(settings, command=command)
    chosen = session.strategies.select(asked.strategies)
    progress = Bar(len(chosen) * (1 + sum(len(sweep.values) for sweep in asked.sweeps)))
    session.tell = progress.tell
    if settings.gpu_budget_mode == "cap":
        session.play_card()
    for line in _small(session):
        show(line)
    bench = session.bench()
    request = session.request().with_changes(**asked.changes)
    points: list[SweepPoint] = []
    try:
        bench.adapters.read()
        _check_requests(bench, chosen, asked.requests(request))
    except LoraperfError:
        progress.close()
        session.close()
        raise
    try:
        for strategy in chosen:
            record = TestRecord(
                f"bench::{strategy.name}",
                Gates(),
                who=strategy.name,
                bench=bench,
                strategy=strategy.name,
                requests=list(images(request, asked.batch)),
            )
            session.records[record.nodeid] = record
            session.start_test_on_card()
            _measure(session, bench, strategy.name, record)
            progress.done()
        names = [strategy.name for strategy in chosen]
        points += take_sweeps(session, bench, names, request, asked.batch, asked.sweeps, progress.done)
    except KeyboardInterrupt:
        session.notes["warning: interrupted; this is what was measured until then"] = None
        raise
    finally:
        progress.close()
        results = replace(gather(session), sweep=tuple(points))
        width = shutil.get_terminal_size((120, 40)).columns
        failed = [verdict for verdict in results.verdicts if verdict.status == "FAIL"]
        lines = [*summary(results, width), *sweep_lines(results, width)]
        lines += [f"loraperf {verdict.code}: {verdict.message}" for verdict in failed]
        if asked.advise:
            lines += ["", *_advice(session, bench, results, request)]
        session.close()
        try:
            write(results)  # first: whoever reads the lines may be gone
        finally:
            for line in lines:
                show(line)
    return results


def _small(session: Session) -> Iterator[str]:
    """Say it where nobody named a model, and the machine is too small for the full one."""
    device = session.device
    if session.settings.model != "auto" or device.total >= FULL_MODEL_NEEDS:
        return
    found = f"{device.name} has {format_size(device.total)}" if device.is_cuda else "no CUDA device here"
    needed = f"the full model needs {format_size(FULL_MODEL_NEEDS)}"
    width = shutil.get_terminal_size((120, 40)).columns
    yield from notes(
        [f"{found}, {needed}: this is the tiny one, whose times and sizes say nothing of it; see --model"], width
    )


def _check_requests(bench: Bench, strategies: Sequence[Strategy], requests: Iterator[Request]) -> None:
    """Refuse before anything is measured what the pipeline would run otherwise than the table says.

    One that cannot be built is told of in its row.

    Raises:
        LoraperfError: a request is not run as it stands.
    """
    name = next((each.name for each in strategies if _can_be_built(bench, each.name)), None)
    if name is not None:
        for request in requests:
            bench.check(name, request)


def _can_be_built(bench: Bench, name: str) -> bool:
    try:
        bench.arm(name)
    except LoraperfError:
        return False
    return True


def _check_is_finite(name: str, generation: Generation) -> None:
    if not generation.latents.isfinite().all():
        raise LoraperfError(f"strategy {name}: {NOT_FINITE}")


def _measure(session: Session, bench: Bench, name: str, record: TestRecord) -> None:
    requests = tuple(record.requests)
    try:
        with session.watch_phase(record, "runtime"):
            _check_is_finite(name, bench.generate(name, requests[0]))
        reference = StrategyWorkload(bench, REFERENCE, requests)
        session.measurer.against(StrategyWorkload(bench, name, requests), reference)
        strategy = session.strategies[name]
        # What a known mistake costs is in the table; it is no finding.
        effect = LoraEffect(0) if strategy.mistake else None
        record.gates = Gates(effect=effect)
        if name != REFERENCE and strategy.uses_lora:
            record.gates = Gates(equivalent=(OutputEquivalent(REFERENCE),), effect=effect)
        record.verdicts.extend(judge(session, record))
    except Exception as error:  # noqa: BLE001 - what one strategy raises must not cost the others their results
        arm = bench.arms[name]
        arm.error = arm.error or said(error)


def _advice(session: Session, bench: Bench, results: Results, request: Request) -> Iterator[str]:
    names = dict.fromkeys(choices(results).values())
    if session.settings.backend != BACKEND:
        yield from advice_lines(results, {})
        yield f"code to paste: there is none for the backend {session.settings.backend}, only for {BACKEND}"
        return
    setting = Setting(bench.model, _loras(bench), request, session.device.torch_name)
    code: dict[str, str] = {}
    for name in names:
        strategy: Strategy = bench.arms[name].recipe.strategy
        try:
            code[name] = code_for(strategy, setting)
        except LoraperfError as error:
            code[name] = f"# {error}"
    yield from advice_lines(results, code)


def _loras(bench: Bench) -> Sequence[Lora]:
    return [
        Lora(
            str(adapter.source.path),
            adapter.source.scale,
            adapter.convention in PLAIN and all(layer.alpha is None for layer in adapter.layers.values()),
        )
        for adapter in bench.adapters.named
    ]
