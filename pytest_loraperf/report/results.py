"""The results of a run, and their JSON (schema 1): bytes are integers, seconds floats."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pytest_loraperf.errors import LoraperfError

SCHEMA = 1


@dataclass(frozen=True)
class Machine:
    """Where it ran; ``memory_kind`` says what the bytes are: VRAM, or tensor bytes where there is no CUDA."""

    device: str
    name: str
    driver: str | None
    torch: str
    backend: str
    memory_kind: str


@dataclass(frozen=True)
class SetupStep:
    """One step of building: seconds, layers changed of those there, the peak in bytes."""

    step: str
    seconds: float
    layers: int
    layers_total: int
    vram_peak: int
    note: str = ""


@dataclass(frozen=True)
class Latency:
    """Seconds a generation: the median, its interval, and of how many rounds."""

    median_s: float
    ci_s: tuple[float, float]
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """Time over that of the reference, with its interval; ``interleaved`` says whether they shared rounds."""

    of: str
    value: float
    ci: tuple[float, float]
    interleaved: bool


@dataclass(frozen=True)
class Vram:
    """Bytes by phase; None where nothing was measured. ``allocated_peak`` counts live tensors alone."""

    setup_peak: int | None = None
    resident: int | None = None
    runtime_peak: int | None = None
    allocated_peak: int | None = None


@dataclass(frozen=True)
class OutputComparison:
    """How far the output is from the reference's; ``psnr`` is None where nothing differs."""

    reference: str
    rel_l2: float | None
    max_abs: float | None
    cosine: float | None
    psnr: float | None
    effect_kept: float | None = None
    image: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class LoraCoverage:
    """How many of the model's layers the adapter fits."""

    layers_matched: int
    layers_total: int
    rank: int | None = None
    gain_min: float | None = None
    gain_median: float | None = None


@dataclass(frozen=True)
class StrategyResult:
    """All that is known of one strategy."""

    steps: tuple[str, ...] = ()
    scheme: str | None = None
    scheme_reason: str | None = None
    mistake: str | None = None
    setup: tuple[SetupStep, ...] = ()
    samples_s: tuple[float, ...] = ()
    latency: Latency | None = None
    ratio: Ratio | None = None
    vram: Vram = field(default_factory=Vram)
    output: OutputComparison | None = None
    lora: LoraCoverage | None = None
    error: str | None = None


@dataclass(frozen=True)
class VerdictRecord:
    """The verdict of one gate on one test."""

    nodeid: str
    strategy: str | None
    code: str
    status: str
    message: str


@dataclass(frozen=True)
class Results:
    """One run."""

    plugin_version: str
    created: str
    command: str
    machine: Machine
    model: str
    request: Mapping[str, Any]
    strategies: Mapping[str, StrategyResult]
    verdicts: tuple[VerdictRecord, ...] = ()
    notes: tuple[str, ...] = ()

    def verdict_of(self, strategy: str) -> str:
        """Return the worst verdict on a strategy: FAIL, INCONCLUSIVE, PASS, or nothing where none was asked."""
        found = {verdict.status for verdict in self.verdicts if verdict.strategy == strategy}
        return next((status for status in ("FAIL", "INCONCLUSIVE", "PASS") if status in found), "")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; a number that is not finite becomes null."""
        return {"schema": SCHEMA, **_plain(self)}

    @classmethod
    def from_json(cls, data: object) -> Results:
        """Read what ``to_json`` gave.

        Raises:
            LoraperfError: the schema or a value is another; the message names the key.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise LoraperfError(
                f"schema is {found!r}, this version reads {SCHEMA}; measure again to write it anew"
            )
        return _read(cls, {key: value for key, value in data.items() if key != "schema"}, "results")  # type: ignore[no-any-return]  # _read builds what it is told to


def write_results(path: Path, results: Results) -> None:
    """Write the file whole or not at all.

    Raises:
        LoraperfError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = json.dumps(results.to_json(), indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LoraperfError(f"results {path}: cannot be written: {error.strerror}") from error


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        LoraperfError: it is missing, truncated, no JSON, or of another schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise LoraperfError(f"results {path}: cannot be read: {error.strerror}; check the path") from error
    except ValueError as error:
        raise LoraperfError(f"results {path}: no JSON, or truncated ({error}); measure again") from error
    try:
        return Results.from_json(data)
    except LoraperfError as error:
        raise LoraperfError(f"results {path}: {error}") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON data into ``kind``, which is one of the few forms that the dataclasses above use."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    arguments = get_args(kind)
    if type(None) in arguments:
        rest = next(each for each in arguments if each is not type(None))
        return None if value is None else _read(rest, value, where)
    if get_origin(kind) is tuple:
        items = _checked(value, list, "a list", where)
        kinds = [arguments[0]] * len(items) if Ellipsis in arguments else list(arguments)
        if len(kinds) != len(items):
            raise _wrong(where, f"{len(items)} values", f"{len(kinds)}")
        return tuple(
            _read(each, item, f"{where}[{i}]") for i, (each, item) in enumerate(zip(kinds, items, strict=True))
        )
    if get_origin(kind) is Mapping:
        found = _checked(value, dict, "an object", where)
        return {key: _read(arguments[1], each, f"{where}.{key}") for key, each in found.items()}
    return _read_scalar(kind, value, where)


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    found = _checked(value, dict, "an object", where)
    hints = get_type_hints(kind)
    missing = [each.name for each in fields(kind) if each.name not in found]
    if missing:
        raise _wrong(f"{where}.{missing[0]}", "nothing", "a value")
    return kind(
        **{each.name: _read(hints[each.name], found[each.name], f"{where}.{each.name}") for each in fields(kind)}
    )


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    checks: dict[Any, Callable[[Any], bool]] = {
        float: lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v),
        int: lambda v: isinstance(v, int) and not isinstance(v, bool),
        bool: lambda v: isinstance(v, bool),
        str: lambda v: isinstance(v, str),
    }
    if not checks[kind](value):
        raise _wrong(where, repr(value), f"a {kind.__name__}")
    return kind(value)


def _checked(value: Any, kind: type, name: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(where, repr(value)[:40], name)
    return value


def _wrong(where: str, found: str, wanted: str) -> LoraperfError:
    return LoraperfError(f"{where} is {found}, {wanted} is expected; measure again to write it anew")
