"""The command line: ``loraperf bench | calibrate | compare | doctor | effect | forecast | history | lint | …``."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_loraperf import __version__
from pytest_loraperf.commands.exits import CUT_OFF, FINDING, FINE, INCONCLUSIVE, INTERRUPTED, USAGE, exits_of
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.options import ACTIONS, OPTIONS, Option, Settings, read_device
from pytest_loraperf.units import parse_percent, parse_size
from pytest_loraperf.writable import check_files

if TYPE_CHECKING:
    from pytest_loraperf.report.results import Results

LINT_FORMATS = ("text", "json", "github", "sarif")
BENCH_ROUNDS = 9  # what a first look takes; --rounds asks for more
PYTEST_FIELDS = (
    *("inconclusive", "order", "lint", "lint_select", "lint_ignore", "github", "forecast"),
    *("leak_limit", "baseline", "update_baseline", "baseline_days", "strict", "gpus"),
)
BENCH_OPTIONS = tuple(option for option in OPTIONS if option.field not in PYTEST_FIELDS)
CALIBRATE_FIELDS = ("backend", "model", "adapters", "device", "scheme", "compile", "offload", "offload_limit")
CALIBRATE_OPTIONS = tuple(option for option in OPTIONS if option.field in CALIBRATE_FIELDS)
EFFECT_FIELDS = ("backend", "model", "device", "scheme", "offload", "offload_limit", "json", "html")
EFFECT_OPTIONS = tuple(option for option in OPTIONS if option.field in EFFECT_FIELDS)
FORECAST_FIELDS = (
    "gpu_budget",
    "backend",
    "model",
    "adapters",
    "scheme",
    "compile",
    "offload",
    "offload_limit",
    "json",
)
FORECAST_OPTIONS = tuple(option for option in OPTIONS if option.field in FORECAST_FIELDS)
REQUEST_FIELDS = ("prompt", "height", "width", "steps", "cfg", "seed", "edit_image")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 fine, 1 a finding or failure, 2 usage, 3 inconclusive."""
    words = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(words)
    given.command = shlex.join(["loraperf", *words])
    try:
        status: int = given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output went away, as `| head` does; what is left must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
    except KeyboardInterrupt:
        print("loraperf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except LoraperfError as error:
        print(f"loraperf: {error}", file=sys.stderr)
        return USAGE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loraperf", description="Keep LoRA inference fast, small and right.")
    parser.add_argument("--version", action="version", version=f"loraperf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_bench(commands.add_parser("bench", help="measure strategies and print the table"))
    _add_calibrate(commands.add_parser("calibrate", help="how often verdicts are wrong, here and in simulation"))
    _add_compare(commands.add_parser("compare", help="judge one results file against another"))
    _add_effect(commands.add_parser("effect", help="is a LoRA in the weights: the effect gain of each layer"))
    _add_forecast(commands.add_parser("forecast", help="peak VRAM of strategies at full size, without a GPU"))
    _add_lint(
        commands.add_parser("lint", help="find wrong orders of LoRA, quantization, offload and compile in source")
    )
    _add_report(
        commands.add_parser("report", help="tables and charts of stored results: a page, Markdown, a picture")
    )
    _add_history(commands.add_parser("history", help="each strategy's time and VRAM over stored results"))
    _add_doctor(commands.add_parser("doctor", help="what this machine can do, and what would spoil a measurement"))
    for name, command in commands.choices.items():
        command.epilog = exits_of(name)
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_bench)
    parser.add_argument(
        "--strategies", default="all", metavar="NAMES", help="all, or names such as fused,low_vram"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images a sample, one after another (default: 1)"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="AXIS=LIST",
        help="measure these too, pipelines as they are built: resolution, height, width, steps or batch, "
        "such as steps=4,8; repeat it for several",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the sweep: .svg, .png or .html")
    parser.add_argument(
        "--advise", action="store_true", help="end with what to take, and the code to paste for it"
    )
    _add_options(parser, BENCH_OPTIONS)
    _add_request(parser)


def _add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    for option in options:
        # A switch takes no metavar; its default is None here, as is that of the others.
        shape: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {"default": None}
        parser.add_argument(
            option.command_flag, dest=option.field, action=ACTIONS[option.kind], help=option.help, **shape
        )


def _add_request(parser: argparse.ArgumentParser) -> None:
    request = parser.add_argument_group("request", "what is generated; the default depends on the model")
    request.add_argument("--prompt")
    request.add_argument("--height", type=int, metavar="PIXELS")
    request.add_argument("--width", type=int, metavar="PIXELS")
    request.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    request.add_argument("--cfg", type=float, metavar="SCALE", help="classifier-free guidance; 1 switches it off")
    request.add_argument("--seed", type=int)
    request.add_argument("--edit-image", metavar="FILE")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_calibrate)
    parser.add_argument("--strategy", default="fused", metavar="NAME", help="what is recorded (default: fused)")
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="rounds to record (default: 100)")
    parser.add_argument(
        "--slowdowns",
        default="2%,5%,10%,20%",
        metavar="LIST",
        help="record these too (default: 2%%,5%%,10%%,20%%)",
    )
    parser.add_argument(
        "--max-rounds", type=int, default=30, metavar="N", help="rounds of a verdict at most (default: 30)"
    )
    parser.add_argument(
        "--replays", type=int, default=1000, metavar="N", help="verdicts of each kind (default: 1000)"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the recording to this file")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay this recording; nothing is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to this file")
    parser.add_argument("--simulated-only", action="store_true", help="simulated noise alone; nothing is measured")
    _add_options(parser, CALIBRATE_OPTIONS)
    _add_request(parser)


def _calibrate(given: argparse.Namespace) -> int:
    from pytest_loraperf.calibrate.run import Calibrating, run_calibration  # noqa: PLC0415 - imports numpy

    asked = Calibrating(
        strategy=given.strategy,
        rounds=given.rounds,
        slowdowns=tuple(_percentage("--slowdowns", each) for each in given.slowdowns.split(",")),
        max_rounds=given.max_rounds,
        replays=given.replays,
        record=given.record,
        replay=given.replay,
        json=given.json,
        simulated_only=given.simulated_only,
    )
    settings = _settings(given, CALIBRATE_OPTIONS)
    found = run_calibration(settings, given.command, asked, _changes(given), _tell, print)
    return FINDING if any(found.findings()) else FINE


def _changes(given: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in REQUEST_FIELDS if (value := getattr(given, name)) is not None}


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_compare)
    parser.add_argument("base", type=Path, metavar="BASE.json", help="the results to compare with")
    parser.add_argument("new", type=Path, metavar="NEW.json", help="the results that are judged")
    parser.add_argument(
        "--max-slowdown", default="5%", metavar="PERCENT", help="how much slower NEW may be (default: 5%%)"
    )
    parser.add_argument(
        "--across-machines",
        action="store_true",
        help="compare even where machine, model or request differ, and say what is lost",
    )


def _compare(given: argparse.Namespace) -> int:
    from pytest_loraperf.compare.compare import run_compare  # noqa: PLC0415 - imports numpy
    from pytest_loraperf.verdict import Status  # noqa: PLC0415 - imports numpy

    max_slowdown = _percentage("--max-slowdown", given.max_slowdown)
    status = run_compare(given.base, given.new, max_slowdown, given.across_machines, print)
    return {Status.FAIL: FINDING, Status.INCONCLUSIVE: INCONCLUSIVE}.get(status, FINE)


def _add_effect(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_effect)
    parser.add_argument(
        "adapters",
        nargs="+",
        metavar="ADAPTER",
        help="a LoRA safetensors file, with its scale if not 1: a.safetensors:0.8; several are stacked",
    )
    parser.add_argument(
        "--strategies",
        default="all",
        metavar="NAMES",
        help="names such as fused,fused_then_quantize (default: all that use a LoRA)",
    )
    parser.add_argument(
        "--min-gain",
        default="0.9",
        metavar="GAIN",
        help="what each layer must keep of the LoRA's effect, 0 to 1 (default: 0.9)",
    )
    _add_options(parser, EFFECT_OPTIONS)


def _effect(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.effect import run_effect  # noqa: PLC0415 - imports torch

    settings = _settings(given, EFFECT_OPTIONS)._replace(adapters=tuple(given.adapters))
    min_gain = _gain("--min-gain", given.min_gain)
    check_files(settings, "--")
    results = run_effect(settings, given.command, given.strategies, min_gain, _tell, print)
    _write_page(settings, results)
    failed = any(verdict.status == "FAIL" for verdict in results.verdicts)
    return FINDING if failed or any(each.error for each in results.strategies.values()) else FINE


def _add_forecast(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_forecast)
    parser.add_argument(
        "--strategy",
        "--strategies",
        dest="strategies",
        default="all",
        metavar="NAMES",
        help="all, or names such as fused,low_vram (default: all)",
    )
    _add_options(parser, FORECAST_OPTIONS)
    _add_request(parser)


def _forecast(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.forecast import run_forecast  # noqa: PLC0415 - imports torch

    settings = _settings(given, FORECAST_OPTIONS)
    check_files(settings, "--")
    results = run_forecast(settings, given.command, given.strategies, _changes(given), _tell, print)
    failed = any(verdict.status == "FAIL" for verdict in results.verdicts)
    return FINDING if failed or any(each.error for each in results.strategies.values()) else FINE


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_lint)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, or folders of them")
    parser.add_argument("--select", default="", metavar="CODES", help="only these: LRP101,LRP105-LRP107 or LRP1")
    parser.add_argument("--ignore", default="", metavar="CODES", help="not these")
    parser.add_argument("--format", default="text", choices=LINT_FORMATS, help="of the report (default: text)")
    parser.add_argument("--fix", action="store_true", help="swap adjacent statements where that is safe")


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


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_doctor)
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--rates",
        action="store_true",
        help="measure matrix products and copies a second too, which uses the device",
    )


def _doctor(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.doctor import examine, lines  # noqa: PLC0415 - start-up

    try:
        read_device(given.device)
    except LoraperfError as error:
        raise LoraperfError(f"--device: {error}") from error
    checks = examine(given.device, rates=given.rates)
    for line in lines(checks, shutil.get_terminal_size((120, 40)).columns):
        print(line)
    return FINDING if any(check.status == "problem" for check in checks) else FINE


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
    results = run_benchmark(settings, given.command, asked, print, partial(_write, settings, given.plot))
    failed = any(verdict.status == "FAIL" for verdict in results.verdicts)
    errors = [each.error for each in results.strategies.values()]
    errors += [each.error or each.over for each in results.sweep]
    return FINDING if failed or any(errors) else FINE


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


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_report)
    _add_stored(parser, "results files; the newest is reported, the others are its history")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page: tables and charts, one file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the charts as a picture")
    parser.add_argument("--gpu-budget", metavar="SIZE", help="show what fits a card of this size, such as 24GB")
    parser.add_argument(
        "--claims",
        action="store_true",
        help="results of several backends side by side, and which known claims hold in each, in Markdown",
    )


def _add_stored(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="RESULTS.json", help=what)
    parser.add_argument(
        "--max-slowdown",
        metavar="PERCENT",
        help="how much slower than in the run before a strategy may be (default: 5%%)",
    )


def _report(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.reporting import Outputs, run_claims, run_report  # noqa: PLC0415 - imports numpy

    try:
        budget = None if given.gpu_budget is None else parse_size(given.gpu_budget)
    except LoraperfError as error:
        raise LoraperfError(f"--gpu-budget: {error}") from error
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


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_history)
    _add_stored(parser, "results files, in any order")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _history(given: argparse.Namespace) -> int:
    from pytest_loraperf.commands.reporting import run_history  # noqa: PLC0415 - imports numpy

    run_history(given.files, given.json, _max_slowdown(given), print)
    return FINE


def _max_slowdown(given: argparse.Namespace) -> float:
    return _percentage("--max-slowdown", given.max_slowdown or "5%")


def _settings(given: argparse.Namespace, options: Sequence[Option]) -> Settings:
    values: dict[str, Any] = {}
    for option in options:
        text = getattr(given, option.field)
        if text is not None:
            try:
                values[option.field] = tuple(map(option.read, text)) if option.many else option.read(text)
            except LoraperfError as error:
                raise LoraperfError(f"{option.command_flag}: {error}") from error
    return Settings(**values)


def _percentage(flag: str, text: str) -> float:
    try:
        return parse_percent(text)
    except LoraperfError as error:
        raise LoraperfError(f"{flag}: {error}") from error


def _gain(flag: str, text: str) -> float:
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not 0 <= gain <= 1:
        raise LoraperfError(f"{flag}: got {text!r}; a number from 0 to 1 is allowed")
    return gain


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[Kloraperf: {line}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
