"""A run's golden latents: what tests generated, the files beside a baseline, and what of it is stored."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_loraperf.baseline.golden import (
    DAMAGED,
    MISSING,
    Distance,
    Golden,
    Goldens,
    GoldenSubject,
    Made,
    judge_golden,
    missing,
    not_finite,
    untold,
)
from pytest_loraperf.baseline.record import Baseline
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.host import cpu_name
from pytest_loraperf.report.table import one_line
from pytest_loraperf.strategies import StepKind
from pytest_loraperf.writable import write_whole

if TYPE_CHECKING:
    from datetime import date

    from torch import Tensor

    from pytest_loraperf.baseline.judge import Terms
    from pytest_loraperf.bench.arm import Output
    from pytest_loraperf.session import Session, TestRecord
    from pytest_loraperf.verdict.types import Verdict

LIBRARIES = ("diffusers", "transformers", "peft", "torchao", "triton")
"""What may change an output when it is upgraded, besides the driver, torch and the backend."""
LFS = b"version https://git-lfs"
FROM_GIT = "take the file from git, or "


class NoFileError(LoraperfError):
    """The file of golden latents is not there."""


@dataclass(frozen=True)
class Taken:
    """What a test generated first, as it would be stored; ``data`` is the file to write, in base64, or empty."""

    golden: Golden
    data: str = ""


@dataclass
class Latents:
    """The golden latents that a run is held to, or that it updates; ``taken`` is by node id."""

    folder: Path
    known: Goldens
    update: bool
    taken: dict[str, Taken] = field(default_factory=dict)

    def judge(self, session: Session, record: TestRecord, terms: Terms) -> Iterator[Verdict]:
        """Yield the verdict on what a test generated first; where the run updates, only on what is no output."""
        if record.bench is None or record.strategy is None or not record.requests:
            return
        from pytest_loraperf.measure.latents import not_finite as count_not_finite  # noqa: PLC0415 - imports torch

        name, request = record.strategy, record.requests[0]
        output = record.bench.output(name, request)
        if wrong := count_not_finite(output.latents):
            yield not_finite(name, wrong, output.latents.numel())
            return
        taken = _take(session, record, output, terms.today)
        known = self.known.get(taken.golden.subject.key)
        self.taken[record.nodeid] = replace(taken, data="")
        seed = request.to_json()["seed"]
        if not isinstance(seed, int):
            what = f"no golden latents of {one_line(name)}, since its request has no seed (seed={seed!r})"
            del self.taken[record.nodeid]
            yield untold(MISSING, what, strict=terms.strict, command=terms.command)
        elif not self.update:
            yield self._verdict(taken.golden, known, output, terms)
        elif known is None or self._verdict(taken.golden, known, output, terms).status != "PASS":
            self.taken[record.nodeid] = taken

    def _verdict(self, now: Golden, known: Golden | None, output: Output, terms: Terms) -> Verdict:
        strict, command = terms.strict, terms.command
        if known is None:
            return missing(now.subject, self.known, strict=strict, command=command)
        where = f"the golden latents of {one_line(now.subject.name)} ({self.folder.name}/{known.file})"
        try:
            values = self._read(known)
        except NoFileError:
            return untold(MISSING, f"{where} are not there", strict=strict, command=command, remedy=FROM_GIT)
        except LoraperfError as error:
            what = f"{where} cannot be used: {error}"
            return untold(DAMAGED, what, strict=strict, command=command, remedy=FROM_GIT)
        found = _distance(known, now, output, values) if now.shape == known.shape else Distance(0.0)
        return judge_golden(known, now.made, now.shape, found, command)

    def _read(self, golden: Golden) -> Tensor:
        from pytest_loraperf.measure.latents import from_file, refuse_pickle  # noqa: PLC0415 - imports torch

        try:
            data = (self.folder / golden.file).read_bytes()
        except FileNotFoundError as error:
            raise NoFileError(str(error)) from error
        except OSError as error:
            raise LoraperfError(f"it cannot be read ({error.strerror})") from error
        if data.startswith(LFS):
            raise LoraperfError("it is a pointer of git LFS, so fetch the files with git lfs pull")
        refuse_pickle(data)
        found = hashlib.sha256(data).hexdigest()
        if found != golden.sha256:
            raise LoraperfError(f"its sha256 is {found[:12]}…, and its record says {golden.sha256[:12]}…")
        return from_file(data, golden.subject.dtype, golden.shape, golden.stride)

    def accepted(self, wrong: Collection[str]) -> dict[str, Taken]:
        """Return by key what tests that passed generated; ``wrong`` are the node ids of the others."""
        found: dict[str, Taken] = {}
        for nodeid, taken in self.taken.items():
            if nodeid not in wrong:
                found.setdefault(taken.golden.subject.key, taken)
        return found

    def store(self, before: Baseline, accepted: Mapping[str, Taken]) -> Baseline:
        """Write the files of what is new, and return the baseline with their records; hand-set limits are kept.

        Raises:
            LoraperfError: a file cannot be written.
        """
        new: dict[str, Golden] = {}
        for key, taken in accepted.items():
            if taken.data:
                kept = before.goldens.get(key)
                new[key] = replace(taken.golden, max_rel_l2=kept.max_rel_l2 if kept else None)
                self._write(taken)
        return replace(before, goldens={**before.goldens, **new})

    def _write(self, taken: Taken) -> None:
        data = base64.b64decode(taken.data)
        write_whole(self.folder / taken.golden.file, "golden latents", data, "the baseline is as it was")

    def told(self, accepted: Mapping[str, Taken], wrong: Collection[str]) -> Iterator[str]:
        """Yield what was stored, what was kept, and what was not stored."""
        others = [taken for nodeid, taken in self.taken.items() if nodeid in wrong]
        groups = (
            ("stored golden latents of {}; commit them", [each for each in accepted.values() if each.data]),
            ("kept golden latents of {}, whose outputs still hold", [e for e in accepted.values() if not e.data]),
            (
                "golden latents of {} are not stored, since a gate of their tests failed",
                [each for each in others if each.data and each.golden.subject.key not in accepted],
            ),
        )
        for line, group in groups:
            if group:
                names = dict.fromkeys(taken.golden.subject.name for taken in group)
                yield f"baseline {self.folder}: {line.format(one_line(', '.join(names)))}"


def _take(session: Session, record: TestRecord, output: Output, today: date) -> Taken:
    from pytest_loraperf.measure.latents import keep, to_file  # noqa: PLC0415 - imports torch

    kept = keep(output.latents, output.dtype)
    data = to_file(kept)
    subject = _subject(session, record, output.dtype)
    golden = Golden(
        subject=subject,
        made=_made(session, record, today),
        file=subject.file,
        sha256=hashlib.sha256(data).hexdigest(),
        shape=tuple(output.latents.shape),
        stride=kept.stride,
        norm=kept.norm,
    )
    return Taken(golden, base64.b64encode(data).decode())


def _subject(session: Session, record: TestRecord, dtype: str) -> GoldenSubject:
    bench, name, device = record.bench, record.strategy, session.device
    if bench is None or name is None:
        raise LoraperfError("golden latents are of a strategy; use lora_pipeline")
    asks = (step for step in session.strategies.find(name).steps if step.kind is StepKind.QUANTIZE)
    return GoldenSubject(
        name=name,
        gpu=device.name if device.is_cuda else cpu_name(),
        backend=bench.shop.backend.name,
        model=str(bench.model),
        request=record.requests[0].to_json(),
        adapters=bench.adapters.labels,
        scheme=bench.shop.choices.scheme if any(step.scheme is None for step in asks) else "",
        dtype=dtype,
    )


def _made(session: Session, record: TestRecord, today: date) -> Made:
    import torch  # noqa: PLC0415 - generating has imported it

    bench, name = record.bench, record.strategy
    if bench is None or name is None:
        raise LoraperfError("golden latents are of a strategy; use lora_pipeline")
    backend, recipe = bench.shop.backend, bench.arms[name].recipe
    versions = {"driver": session.device.driver, "torch": torch.__version__, backend.name: backend.version}
    versions |= {library: _version(library) for library in LIBRARIES if library != backend.name}
    return Made(
        created=today.isoformat(),
        steps=tuple(str(step) for step in recipe.strategy.steps),
        scheme=recipe.scheme,
        versions={library: version for library, version in versions.items() if version},
    )


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _distance(known: Golden, now: Golden, output: Output, values: Tensor) -> Distance:
    from pytest_loraperf.measure.latents import distance  # noqa: PLC0415 - imports torch

    found = distance(output.latents, values, known.stride, known.norm)
    versions = tuple(
        f"{when}: {', '.join((*(f'{name} {version}' for name, version in made.versions.items()), *made.steps))}"
        for when, made in ((known.made.created, known.made), ("now", now.made))
    )
    detail = (
        f"relative L2  {found.rel_l2:.5g}  (at most {known.limit(now.made):.4g})",
        f"max abs      {found.max_abs:.5g}",
        f"cosine       {found.cosine:.6f}",
        f"PSNR         {found.psnr:.2f} dB",
        f"values       {values.numel()} of {output.latents.numel()}",
        f"norm of all  {known.norm:.6g} then, {now.norm:.6g} now",
    )
    return Distance(found.rel_l2, (*detail, *versions))
