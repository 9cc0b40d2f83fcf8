"""The results of a run, and their JSON (schema 1): bytes are integers, seconds floats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.limits import Limit, Rates
from pytest_loraperf.report.schema import from_plain, parse_json, to_plain
from pytest_loraperf.writable import write_whole

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it ran; ``memory_kind`` says what the bytes are: VRAM, or tensor bytes where there is no CUDA.

    ``rates`` are what it was measured to do in a second, where ``--loraperf-limits`` asked for it.
    """

    device: str
    name: str
    driver: str | None = None
    torch: str
    backend: str = ""
    memory_kind: str = "VRAM"
    rates: Rates | None = None


@dataclass(frozen=True)
class SetupStep:
    """One step of building: seconds, layers changed of those there, the peak in bytes (None: not measured)."""

    step: str
    seconds: float
    layers: int
    layers_total: int = 0
    vram_peak: int | None = None
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
class MemoryOverTime:
    """Bytes over one generation that was not timed, at up to 200 moments: the lists are of one length.

    ``needed`` is what a card must have, as in ``Vram``, ``live`` the tensors alone. ``seconds`` count from its
    start, ``steps_s`` are those where each denoising step begins and the last ends. Being watched, it is slower.
    """

    seconds: tuple[float, ...]
    needed: tuple[int, ...]
    live: tuple[int, ...]
    steps_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class OutputComparison:
    """How far the output is from the reference's; ``psnr`` is None where nothing differs."""

    reference: str
    rel_l2: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    psnr: float | None = None
    effect_kept: float | None = None
    image: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class LoraCoverage:
    """How many of the model's layers the adapter fits, and the effect gain of those: the lowest and the median.

    ``gains`` has each of them where ``loraperf effect`` looked (None: no number).
    """

    layers_matched: int
    layers_total: int
    rank: int | None = None
    gain_min: float | None = None
    gain_median: float | None = None
    gains: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class StepSeconds:
    """Median seconds of the first denoising step, and of the others (None where there is one step)."""

    first: float
    others: float | None = None


@dataclass(frozen=True)
class ComparisonRecord:
    """Arms that were measured in the same rounds, or in turns where they are not ``interleaved``.

    ``order`` has the arms of each round as they were called, ``samples_s`` the seconds of each arm in each round
    (None where it raised), in turns the median of a block; ``dropped`` are the rounds under throttling, counted
    from 0. ``tests`` has the node id of the test that gave it for each arm that is a callable.
    """

    arms: tuple[str, ...]
    interleaved: bool
    order: tuple[str, ...] = ()
    samples_s: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    tests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StrategyResult:
    """All that is known of one strategy.

    ``samples_s`` is wall time in seconds a generation of ``requests``, round by round, ``gpu_s`` the GPU's share;
    ``limit`` is the least time that the machine's rates allow for one; ``model`` is what was built, empty in files
    of before.
    """

    steps: tuple[str, ...] = ()
    scheme: str | None = None
    scheme_reason: str | None = None
    mistake: str | None = None
    setup: tuple[SetupStep, ...] = ()
    requests: tuple[Mapping[str, Any], ...] = ()
    adapters: tuple[str, ...] = ()
    samples_s: tuple[float, ...] = ()
    gpu_s: tuple[float, ...] = ()
    steps_s: StepSeconds | None = None
    latency: Latency | None = None
    limit: Limit | None = None
    ratio: Ratio | None = None
    vram: Vram = field(default_factory=Vram)
    memory: MemoryOverTime | None = None
    output: OutputComparison | None = None
    lora: LoraCoverage | None = None
    error: str | None = None
    model: str = ""

    @property
    def of_limit(self) -> float | None:
        """The share of the median time that the hardware needs at least, None where it is not known."""
        if self.limit is None or self.latency is None or not self.latency.median_s:
            return None
        return self.limit.seconds / self.latency.median_s

    @property
    def need(self) -> int:
        """Bytes that a card must have, set-up included; 0 where they were not measured."""
        return max(self.vram.setup_peak or 0, self.vram.resident or 0, self.vram.runtime_peak or 0)


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A strategy at one value of what was swept: ``latency`` is of one image, ``runtime_peak`` bytes.

    ``images`` were made one after another by the pipeline as it was built; ``image_s_with_setup`` is the seconds
    of one of them with its share of building the pipeline, compilation included. ``over`` says by how much
    ``--gpu-budget`` was exceeded.
    """

    axis: str
    value: int
    strategy: str
    images: int = 1
    latency: Latency | None = None
    image_s_with_setup: float | None = None
    runtime_peak: int | None = None
    over: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class VerdictRecord:
    """The verdict of one gate on one test; ``tighter`` is a stricter marker for one that passed by far.

    ``detail`` has the lines that the report of a failed test shows; files of before have none.
    """

    nodeid: str
    strategy: str | None = None
    code: str
    status: str
    message: str
    tighter: str | None = None
    detail: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """One run; ``gpu_budget`` is the card in bytes that it was held to."""

    plugin_version: str
    created: str
    command: str = ""
    machine: Machine
    model: str
    request: Mapping[str, Any]
    strategies: Mapping[str, StrategyResult]
    verdicts: tuple[VerdictRecord, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()
    notes: tuple[str, ...] = ()
    gpu_budget: int | None = None
    sweep: tuple[SweepPoint, ...] = ()

    def verdict_of(self, strategy: str) -> str:
        """Return the worst verdict on a strategy: FAIL, INCONCLUSIVE, PASS, or nothing where none was asked."""
        found = {verdict.status for verdict in self.verdicts if verdict.strategy == strategy}
        return next((status for status in ("FAIL", "INCONCLUSIVE", "PASS") if status in found), "")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; a number that is not finite becomes null."""
        return {"schema": SCHEMA, **to_plain(self)}

    @classmethod
    def from_json(cls, data: object) -> Results:
        """Read what ``to_json`` gave.

        Raises:
            LoraperfError: the schema or a value is another; the message names the key.
        """
        found = data.get("schema") if isinstance(data, dict) else SCHEMA
        # True equals 1, and is no schema.
        if found != SCHEMA or isinstance(found, bool):
            raise LoraperfError(
                f"results.schema is {json.dumps(found, default=repr)}, this version reads {SCHEMA}; "
                "measure again with this version"
            )
        results: Results = from_plain(cls, data, "results")
        for where, lengths in results._series():
            if len(lengths) > 1:
                raise LoraperfError(
                    f"{where}: the lists are of {' and '.join(map(str, sorted(lengths)))} values, "
                    "one length is expected; measure again to write them anew"
                )
        return results

    def _series(self) -> Iterator[tuple[str, set[int]]]:
        """Yield where lists are that belong together, value by value, and their lengths."""
        for number, taken in enumerate(self.comparisons):
            yield f"results.comparisons[{number}].samples_s", set(map(len, taken.samples_s.values()))
        for name, found in self.strategies.items():
            if found.memory is not None:
                lists = found.memory.seconds, found.memory.needed, found.memory.live
                yield f"results.strategies[{name!r}].memory", set(map(len, lists))


def write_results(path: Path, results: Results, *, compact: bool = False) -> None:
    """Write the file whole or not at all; folders that are missing are made.

    ``compact`` is one line, which takes a quarter of the time to make.

    Raises:
        LoraperfError: it cannot be written.
    """
    text = json.dumps(results.to_json(), indent=None if compact else 1, allow_nan=False) + "\n"
    write_whole(path, "results", text)


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        LoraperfError: it is missing, truncated, no JSON, or of another schema.
    """
    try:
        return Results.from_json(parse_json(path.read_text(encoding="utf-8")))
    except LoraperfError as error:
        raise LoraperfError(f"results {path}: {error}") from error
    except OSError as error:
        raise LoraperfError(f"results {path}: cannot be read: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise LoraperfError(f"results {path}: no JSON, or truncated ({error}); measure again") from error
