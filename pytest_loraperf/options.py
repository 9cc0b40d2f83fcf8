"""The options, each named, read and explained once, and the Settings that they resolve to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.assign import read_gpus
from pytest_loraperf.registry import BACKENDS, DEFAULT, check_name
from pytest_loraperf.units import parse_duration, parse_size

SCHEMES = ("auto", "fp8_storage", "fp8_compute", "torchao_fp8_w8a8", "fp8_loaded")
COMPILE_MODES = ("auto", "on", "off")
OFFLOAD_SCHEMES = ("auto", "stream", "diffsynth", "group")
INCONCLUSIVE_MODES = ("fail", "warn")
GITHUB_MODES = ("auto", "on", "off")
BUDGET_MODES = ("assert", "cap")
ORDER_MODES = ("error", "warn", "off")
MIN_ROUNDS = 3
ACTIONS = {"bool": "store_true", "linelist": "append", "string": "store"}


class Settings(NamedTuple):
    """What the options ask for, resolved once; a tuple, since a frozen dataclass of so many costs start-up.

    ``gpu_budget``, ``leak_limit`` and ``offload_limit`` are in bytes; ``max_seconds`` are of measuring one arm of
    one test.
    """

    gpu_budget: int | None = None
    gpu_budget_mode: str = "assert"
    leak_limit: int | None = None
    backend: str = DEFAULT
    model: str = "auto"
    adapters: tuple[str, ...] = ()
    device: str = "auto"
    scheme: str = "auto"
    compile: str = "auto"
    offload: str = "auto"
    offload_limit: int | None = None
    rounds: int = 150
    max_seconds: float = 60.0
    inconclusive: str = "fail"
    order: str = "error"
    baseline: Path | None = None
    update_baseline: bool = False
    baseline_days: int = 90
    strict: bool = False
    lint: bool = False
    lint_select: tuple[str, ...] = ()
    lint_ignore: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    github: str = "auto"
    forecast: bool = False
    limits: bool = False
    json: Path | None = None
    benchmark_json: Path | None = None
    html: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files that are asked for at the end of a run, by what each is."""
        files = {"json": self.json, "benchmark-json": self.benchmark_json, "html": self.html}
        return {name: path for name, path in files.items() if path is not None}

    def with_absolute_files(self) -> Settings:
        """Return these settings with files that stay where they are, wherever tests go."""
        return self._replace(
            json=_absolute(self.json),
            benchmark_json=_absolute(self.benchmark_json),
            html=_absolute(self.html),
            baseline=_absolute(self.baseline),
        )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


class Option(NamedTuple):
    """One option: its flag, the Settings field it fills, how its text is read, and its help.

    One with no ``metavar`` is a switch: it is on or off, and has no text. The text of one that names a file, as
    all do whose value is a path, is relative to the ini where that gives it, else to where pytest was started.
    """

    flag: str
    field: str
    read: Callable[[str], Any]
    help: str
    metavar: str
    many: bool = False
    is_file: bool = False

    @property
    def command_flag(self) -> str:
        """The flag of the command ``loraperf``, which has no other plugin's beside it."""
        return self.flag.replace("--loraperf-", "--")

    @property
    def names_a_file(self) -> bool:
        """Whether its text is the path of a file."""
        return self.is_file or self.read is Path

    @property
    def kind(self) -> Literal["bool", "linelist", "string"]:
        """The type of its ini value."""
        if not self.metavar:
            return "bool"
        return "linelist" if self.many else "string"

    @property
    def ini(self) -> str:
        """The ini value of the same name."""
        return self.flag.removeprefix("--").replace("-", "_")


def one_of(*allowed: str) -> Callable[[str], str]:
    """Return a reader that takes these words only."""

    def read(text: str) -> str:
        if text not in allowed:
            raise LoraperfError(f"got {text!r}; allowed are {', '.join(allowed)}")
        return text

    return read


def read_device(text: str) -> str:
    """Read the name of a device; whether it is there is found when it is needed.

    Raises:
        LoraperfError: it is no such name.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise LoraperfError(f"got {text!r}; allowed are auto, cpu, cuda and cuda:N")
    return text


def read_model(text: str) -> str:
    """Read what names a model; a function is imported when it is needed.

    Raises:
        LoraperfError: it is no such name.
    """
    from pytest_loraperf.models import check_model  # noqa: PLC0415 - only where one is named

    check_model(text)
    return text


def read_rounds(text: str) -> int:
    """Read a number of rounds.

    Raises:
        LoraperfError: it is no whole number, or too small to decide anything.
    """
    if not text.isdecimal() or int(text) < MIN_ROUNDS:
        raise LoraperfError(f"got {text!r}; a whole number of at least {MIN_ROUNDS} is allowed")
    return int(text)


def read_days(text: str) -> int:
    """Read a number of days.

    Raises:
        LoraperfError: it is no whole number of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise LoraperfError(f"got {text!r}; a whole number of days, at least 1, is allowed")
    return int(text)


def read_codes(text: str) -> tuple[str, ...]:
    """Read codes of the linter, ranges of them or their beginnings.

    Raises:
        LoraperfError: a word names no code.
    """
    from pytest_loraperf.order.lint.findings import codes_in  # noqa: PLC0415 - only where codes are given

    return codes_in(text)


OPTIONS = (
    Option(
        "--gpu-budget",
        "gpu_budget",
        parse_size,
        "hold every test to a card of this size, such as 14GB: peak VRAM of set-up and call",
        "SIZE",
    ),
    Option(
        "--gpu-budget-mode",
        "gpu_budget_mode",
        one_of(*BUDGET_MODES),
        "assert measures what tests need; cap lets this process have no more of the GPU than such a card has",
        "MODE",
    ),
    Option(
        "--gpu-leak-limit",
        "leak_limit",
        parse_size,
        "fail a test that leaves more than this behind on the device once it is torn down, such as 1MB",
        "SIZE",
    ),
    Option(
        "--loraperf-backend",
        "backend",
        check_name,
        f"the library that pipelines are built with: {', '.join(BACKENDS)} (default: {DEFAULT}), or one that an "
        "installed package brings a backend for",
        "NAME",
    ),
    Option(
        "--loraperf-model",
        "model",
        read_model,
        "what is built: auto, synthetic:tiny, synthetic:full, synthetic:PIPELINE:SIZE, pretrained:ORG/NAME or "
        ":FOLDER, module:function",
        "MODEL",
    ),
    Option(
        "--loraperf-adapter",
        "adapters",
        str,
        "a LoRA safetensors file, with its scale if not 1: a.safetensors:0.8; repeat it to stack several",
        "FILE",
        many=True,
        is_file=True,
    ),
    Option("--loraperf-device", "device", read_device, "auto, cpu, cuda or cuda:N", "DEVICE"),
    Option(
        "--loraperf-scheme",
        "scheme",
        one_of(*SCHEMES),
        f"how quantize steps quantize: {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]} (DiffSynth 1.1)",
        "SCHEME",
    ),
    Option(
        "--loraperf-compile",
        "compile",
        one_of(*COMPILE_MODES),
        "auto compiles what has a compile step or needs it to be fast (torchao schemes), on also all whose "
        "weights stay on the device, off nothing",
        "MODE",
    ),
    Option(
        "--loraperf-offload",
        "offload",
        one_of(*OFFLOAD_SCHEMES),
        "how steps offload: auto and stream bring blocks ahead of their call, diffsynth as DiffSynth does, "
        "group by diffusers' group offloading, which is auto there",
        "SCHEME",
    ),
    Option(
        "--loraperf-offload-limit",
        "offload_limit",
        parse_size,
        "the card that offload steps leave room on, such as 6GB (default: each step's own, at most --gpu-budget)",
        "SIZE",
    ),
    Option(
        "--loraperf-rounds", "rounds", read_rounds, "stop a comparison that cannot tell after so many rounds", "N"
    ),
    Option(
        "--loraperf-max-seconds",
        "max_seconds",
        parse_duration,
        "stop sampling an arm after this long, such as 60s; at least three samples are taken",
        "TIME",
    ),
    Option(
        "--loraperf-inconclusive",
        "inconclusive",
        one_of(*INCONCLUSIVE_MODES),
        "what a verdict that cannot tell does: fail or warn",
        "MODE",
    ),
    Option(
        "--loraperf-order",
        "order",
        one_of(*ORDER_MODES),
        "what a broken rule on the order of LoRA, quantization, offload and compile does: error, warn or off",
        "MODE",
    ),
    Option(
        "--loraperf-baseline",
        "baseline",
        Path,
        "hold what tests measure to the samples stored in this file, and outputs to the golden latents beside it",
        "FILE",
    ),
    Option(
        "--loraperf-update-baseline",
        "update_baseline",
        bool,
        "store what passed in the file of --loraperf-baseline instead of judging by it",
        metavar="",
    ),
    Option(
        "--loraperf-baseline-days",
        "baseline_days",
        read_days,
        "the days after which a stored result is stale (default: 90)",
        "DAYS",
    ),
    Option(
        "--loraperf-strict",
        "strict",
        bool,
        "fail where a baseline is missing, stale or damaged, as it does where the variable CI is set",
        metavar="",
    ),
    Option(
        "--loraperf-lint", "lint", bool, "lint each Python file that is collected: an item for each", metavar=""
    ),
    Option(
        "--loraperf-lint-select",
        "lint_select",
        read_codes,
        "lint for these alone: LRP101,LRP105-LRP107 or LRP1",
        "CODES",
    ),
    Option("--loraperf-lint-ignore", "lint_ignore", read_codes, "do not lint for these", "CODES"),
    Option(
        "--loraperf-gpus",
        "gpus",
        read_gpus,
        "let each worker of pytest-xdist see one GPU alone: auto shares out those that there are, 0,1 these; "
        "workers that share one wait until what their tests declare fits",
        "GPUS",
    ),
    Option(
        "--loraperf-github",
        "github",
        one_of(*GITHUB_MODES),
        "write annotations and the step's summary for GitHub Actions: auto where it runs this, on, or off",
        "MODE",
    ),
    Option(
        "--loraperf-forecast",
        "forecast",
        bool,
        "hold pipelines to their VRAM budgets by a forecast at full size, without a GPU; nothing else is judged",
        metavar="",
    ),
    Option(
        "--loraperf-limits",
        "limits",
        bool,
        "show how far each strategy is from the limit of the hardware: rates are measured once, and what a "
        "generation computes and moves is counted in one more of them",
        metavar="",
    ),
    Option("--loraperf-json", "json", Path, "write the results to this file", "FILE"),
    Option(
        "--loraperf-benchmark-json",
        "benchmark_json",
        Path,
        "write the samples to this file as pytest-benchmark does, for github-action-benchmark or Bencher",
        "FILE",
    ),
    Option("--loraperf-html", "html", Path, "write a report to this file: one page, tables and charts", "FILE"),
)
