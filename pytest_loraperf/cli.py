"""The command line: ``loraperf bench | calibrate | compare | doctor | effect | forecast | history | lint | …``."""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_loraperf.commands.arguments import (
    BENCH_OPTIONS,
    BENCH_ROUNDS,
    CALIBRATE_OPTIONS,
    EFFECT_OPTIONS,
    FORECAST_OPTIONS,
    REQUEST_FIELDS,
    parser,
)
from pytest_loraperf.commands.exits import CUT_OFF, FINDING, FINE, INCONCLUSIVE, INTERRUPTED, USAGE
from pytest_loraperf.commands.progress import Line
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.models import names_function
from pytest_loraperf.options import OPTIONS, Option, Settings, read_device
from pytest_loraperf.units import parse_percent, parse_size
from pytest_loraperf.writable import check_files

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results

Value = TypeVar("Value")


_UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EBADF)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 fine, 1 a finding or failure, 2 usage, 3 inconclusive."""
    words = sys.argv[1:] if arguments is None else arguments
    given = parser().parse_args(words)
    given.command = shlex.join(["loraperf", *words])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal has no letter for must not end a measurement
    try:
        with _terminated_as_by_ctrl_c():
            status = COMMANDS[given.name](given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output went away, as `| head` does; what is left must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
    except KeyboardInterrupt:
        print("loraperf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except LoraperfError as error:
        print(f"loraperf: {_own_flags(given)(str(error))}", file=sys.stderr)
        return USAGE
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"loraperf: the output cannot be written: {error.strerror}", file=sys.stderr)
        return USAGE
    return status


def _bench(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.benchmark import Benchmarking, run_benchmark  # noqa: PLC0415 - imports torch
    from pytest_loraperf.commands.sweep import check_sweep, parse_sweep  # noqa: PLC0415 - start-up

    settings = _settings(given, BENCH_OPTIONS)
    if given.rounds is None:
        settings = settings._replace(rounds=BENCH_ROUNDS)
    check_files(settings, "--")
    sweeps = tuple(map(parse_sweep, given.sweep))
    check_sweep(given.batch, sweeps, given.plot, settings.files.values())
    asked = Benchmarking(given.strategies, _changes(given), given.batch, sweeps, given.advise)
    results = run_benchmark(settings, given.command, asked, _printer(given), partial(_write, settings, given.plot))
    return _status(results)


def _status(results: Results) -> int:
    failed = any(verdict.status == "FAIL" for verdict in results.verdicts)
    wrong = [each.error for each in results.strategies.values()]
    wrong += [each.error or each.over for each in results.sweep]
    return FINDING if failed or any(wrong) else FINE


def _write(settings: Settings, plot: Path | None, results: Results) -> None:
    from pytest_loraperf.report.benchmark_json import write_benchmarks  # noqa: PLC0415 - start-up
    from pytest_loraperf.report.results import write_results  # noqa: PLC0415 - the same

    if settings.json is not None:
        write_results(settings.json, results)
    if settings.benchmark_json is not None:
        write_benchmarks(settings.benchmark_json, results)
    if plot is not None:
        from pytest_loraperf.page.sweep import write_plot  # noqa: PLC0415 - imports vl_convert

        write_plot(plot, results)
    _write_page(settings, results)


def _write_page(settings: Settings, results: Results) -> None:
    if settings.html is not None:
        from pytest_loraperf.page.write import write_page  # noqa: PLC0415 - imports jinja2 and vl_convert

        write_page(settings.html, results)


def _calibrate(given: argparse.Namespace) -> int:
    from pytest_loraperf.calibrate.run import Calibrating, run_calibration  # noqa: PLC0415 - imports numpy

    asked = Calibrating(
        strategy=given.strategy,
        rounds=given.rounds,
        slowdowns=tuple(_read("--slowdowns", parse_percent, each) for each in given.slowdowns.split(",")),
        max_rounds=given.max_rounds,
        replays=given.replays,
        record=given.record,
        replay=given.replay,
        json=given.json,
        simulated_only=given.simulated_only,
    )
    settings = _settings(given, CALIBRATE_OPTIONS)
    found = run_calibration(settings, given.command, asked, _changes(given), Line().tell, _printer(given))
    return FINDING if any(found.findings()) else FINE


def _changes(given: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in REQUEST_FIELDS if (value := getattr(given, name)) is not None}


def _compare(given: argparse.Namespace) -> int:
    from pytest_loraperf.compare.compare import run_compare  # noqa: PLC0415 - imports numpy
    from pytest_loraperf.verdict import Status  # noqa: PLC0415 - imports numpy

    max_slowdown = _read("--max-slowdown", parse_percent, given.max_slowdown)
    status = run_compare(given.base, given.new, max_slowdown, given.across_machines, print)
    return {Status.FAIL: FINDING, Status.INCONCLUSIVE: INCONCLUSIVE}.get(status, FINE)


def _effect(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.effect import run_effect  # noqa: PLC0415 - imports torch

    settings = _settings(given, EFFECT_OPTIONS)._replace(adapters=tuple(given.adapters))
    min_gain = _read("--min-gain", _gain, given.min_gain)
    check_files(settings, "--")
    results = run_effect(settings, given.command, given.strategies, min_gain, Line().tell, _printer(given))
    _write_page(settings, results)
    return _status(results)


def _forecast(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.forecast import run_forecast  # noqa: PLC0415 - imports torch

    settings = _settings(given, FORECAST_OPTIONS)
    check_files(settings, "--")
    results = run_forecast(
        settings, given.command, given.strategies, _changes(given), Line().tell, _printer(given)
    )
    return _status(results)


def _lint(given: argparse.Namespace) -> int:
    from pytest_loraperf.order.lint.command import run_lint  # noqa: PLC0415 - start-up

    select, ignore = (
        [word.strip() for word in text.split(",") if word.strip()] for text in (given.select, given.ignore)
    )
    found = run_lint(
        given.paths,
        select,
        ignore,
        given.format,
        fix=given.fix,
        write=print,
        tell=lambda line: print(f"loraperf: {line}", file=sys.stderr),
    )
    return FINDING if found else FINE


def _doctor(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.doctor import examine, lines  # noqa: PLC0415 - start-up

    _read("--device", read_device, given.device)
    checks = examine(given.device, rates=given.rates)
    for line in lines(checks, shutil.get_terminal_size((120, 40)).columns):
        print(line)
    return FINDING if any(check.status == "problem" for check in checks) else FINE


def _report(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.reporting import Outputs, run_claims, run_report  # noqa: PLC0415 - imports numpy

    budget = None if given.gpu_budget is None else _read("--gpu-budget", parse_size, given.gpu_budget)
    outputs = Outputs(given.html, given.markdown, given.png)
    if given.claims:
        of_one = {
            "--html": given.html,
            "--png": given.png,
            "--gpu-budget": budget,
            "--max-slowdown": given.max_slowdown,
        }
        unused = [flag for flag, value in of_one.items() if value is not None]
        if unused:
            raise LoraperfError(f"--claims is a table in Markdown, without {', '.join(unused)}; leave that out")
        run_claims(given.files, outputs, print)
        return FINE
    run_report(given.files, outputs, budget, _max_slowdown(given), print)
    return FINE


def _history(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.reporting import run_history  # noqa: PLC0415 - imports numpy

    run_history(given.files, given.json, _max_slowdown(given), print)
    return FINE


def _max_slowdown(given: argparse.Namespace) -> float:
    return _read("--max-slowdown", parse_percent, given.max_slowdown or "5%")


def _settings(given: argparse.Namespace, options: Sequence[Option]) -> Settings:
    values: dict[str, Any] = {}
    for option in options:
        text = getattr(given, option.field)
        if text is not None:
            read = partial(_read, option.command_flag, option.read)
            values[option.field] = tuple(map(read, text)) if option.many else read(text)
    here = str(Path.cwd())
    if names_function(values.get("model", "")) and here not in sys.path:
        sys.path.append(here)  # as `python -m pytest` does; last, so that it hides no package
    return Settings(**values)


def _own_flags(given: argparse.Namespace) -> Callable[[str], str]:
    """Return what names the options of a text as this command has them, where it has them, not as pytest does."""
    own = {option.flag: option.command_flag for option in OPTIONS if hasattr(given, option.field)}
    return partial(re.compile("--loraperf-[a-z-]+").sub, lambda found: own.get(found[0], found[0]))


def _printer(given: argparse.Namespace) -> Callable[[str], None]:
    own = _own_flags(given)
    return lambda line: print(own(line))


def _read(flag: str, read: Callable[[str], Value], text: str) -> Value:
    """Read the text of an argument; what is wrong with it is told with its flag."""
    try:
        return read(text)
    except LoraperfError as error:
        raise LoraperfError(f"{flag}: {error}") from error


def _gain(text: str) -> float:
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not 0 <= gain <= 1:
        raise LoraperfError(f"got {text!r}; a number from 0 to 1 is allowed")
    return gain


@contextmanager
def _terminated_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a command in order: a job that has used up its time gets it, and often more than one."""
    is_main = threading.current_thread() is threading.main_thread()  # only that may
    before = signal.getsignal(signal.SIGTERM)
    if not is_main or before is not signal.SIG_DFL:  # ignored, or somebody else's
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "bench": _bench,
    "calibrate": _calibrate,
    "compare": _compare,
    "effect": _effect,
    "forecast": _forecast,
    "lint": _lint,
    "report": _report,
    "history": _history,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
