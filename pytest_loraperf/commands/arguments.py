"""The arguments of the commands of ``loraperf``; what a command does with them is loaded when it is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_loraperf import __version__
from pytest_loraperf.commands.exits import exits_of
from pytest_loraperf.options import ACTIONS, OPTIONS, Option

LINT_FORMATS = ("text", "json", "github", "sarif")
BENCH_ROUNDS = 9
"""What ``loraperf bench`` stops at unless ``--rounds`` asks for more: what a first look takes."""
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


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments; ``name`` is the command's."""
    whole = argparse.ArgumentParser(prog="loraperf", description="Keep LoRA inference fast, small and right.")
    whole.add_argument("--version", action="version", version=f"loraperf {__version__}")
    commands = whole.add_subparsers(title="commands", dest="name", required=True, metavar="COMMAND")
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
    return whole


def _add_bench(parser: argparse.ArgumentParser) -> None:
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
        "--advise", action="store_true", help="end with what to take, and for DiffSynth the code to paste"
    )
    _add_options(parser, BENCH_OPTIONS)
    _add_request(parser)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
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


def _add_compare(parser: argparse.ArgumentParser) -> None:
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


def _add_effect(parser: argparse.ArgumentParser) -> None:
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


def _add_forecast(parser: argparse.ArgumentParser) -> None:
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


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, or folders of them")
    parser.add_argument("--select", default="", metavar="CODES", help="only these: LRP101,LRP105-LRP107 or LRP1")
    parser.add_argument("--ignore", default="", metavar="CODES", help="not these")
    parser.add_argument("--format", default="text", choices=LINT_FORMATS, help="of the report (default: text)")
    parser.add_argument("--fix", action="store_true", help="swap adjacent statements where that is safe")


def _add_report(parser: argparse.ArgumentParser) -> None:
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


def _add_history(parser: argparse.ArgumentParser) -> None:
    _add_stored(parser, "results files, in any order")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_stored(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="RESULTS.json", help=what)
    parser.add_argument(
        "--max-slowdown",
        metavar="PERCENT",
        help="how much slower than in the run before a strategy may be (default: 5%%)",
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--rates",
        action="store_true",
        help="measure matrix products and copies a second too, which uses the device",
    )


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
