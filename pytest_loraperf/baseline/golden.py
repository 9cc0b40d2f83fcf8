"""Golden latents: the record that names them, and the verdicts on an output that is held to them. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from pytest_loraperf.baseline.record import SHOWN
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.schema import to_plain
from pytest_loraperf.report.table import one_line
from pytest_loraperf.verdict.codes import Code
from pytest_loraperf.verdict.equivalence import Limits
from pytest_loraperf.verdict.types import Status, Verdict

CODE: Final = "golden"
MISSING: Final = "golden-missing"
DAMAGED: Final = "golden-damaged"
NOT_FINITE: Final = "golden-not-finite"
MAY_DIFFER = ("scheme", "dtype")
"""The fields of a subject that another golden of the same thing may differ in, to be told where there is none."""


@dataclass(frozen=True, kw_only=True)
class GoldenSubject:
    """What was generated, and on which kind of device; no version is in it: goldens outlive upgrades.

    ``scheme`` is the one that was asked for, ``auto`` included (empty where a strategy asks for none): where
    another version chooses another scheme by itself, its output is held to the golden all the same.
    """

    name: str
    gpu: str
    backend: str
    model: str
    request: Mapping[str, Any]
    adapters: tuple[str, ...] = ()
    scheme: str = ""
    dtype: str

    @property
    def key(self) -> str:
        """A readable name, and a digest of every field."""
        return f"{one_line(f'{self.name} on {self.gpu}')[:SHOWN]} [{self._digest}]"

    @property
    def file(self) -> str:
        """The name of the file of its latents."""
        return f"{re.sub(r'[^A-Za-z0-9_]+', '-', self.name)[:60]}-{self._digest}.safetensors"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(to_plain(self), sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: GoldenSubject) -> list[str]:
        """Return the names of the fields in which two subjects differ."""
        ours, theirs = to_plain(self), to_plain(other)
        return [each.name for each in fields(self) if ours[each.name] != theirs[each.name]]


@dataclass(frozen=True, kw_only=True)
class Made:
    """When an output was generated, how, and with which versions; ``scheme`` is the one that was carried out."""

    created: str
    steps: tuple[str, ...] = ()
    scheme: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def since(self, then: Made) -> Iterator[str]:
        """Yield what is another since then."""
        for name in dict.fromkeys((*then.versions, *self.versions)):
            before, now = (each.versions.get(name, "none") for each in (then, self))
            if before != now:
                yield f"{name} was {before} and is {now}"
        if then.steps != self.steps:
            before, now = (" → ".join(each.steps) or "none" for each in (then, self))
            yield f"the steps were {before} and are {now}"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The record of golden latents; the values are in ``file``, in the folder of the baseline.

    ``stride`` is every how many-th value is there, ``norm`` that of all values. ``max_rel_l2`` is the limit on the
    relative L2 distance, None for the default of its scheme; it is edited by hand.

    Raises:
        LoraperfError: a value is none that was written.
    """

    subject: GoldenSubject
    made: Made
    file: str
    sha256: str
    shape: tuple[int, ...]
    stride: int = 1
    norm: float
    max_rel_l2: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.safetensors", self.file):
            raise LoraperfError(f"file is {self.file!r:.60}; the name of a .safetensors file is allowed, no path")
        if self.stride < 1 or not self.shape or min(self.shape) < 1 or self.norm < 0:
            raise LoraperfError("shape and stride are whole numbers of at least 1, and norm is not negative")
        if self.max_rel_l2 is not None and self.max_rel_l2 < 0:
            raise LoraperfError(f"max_rel_l2 is {self.max_rel_l2}; 0 or more is allowed")

    def limit(self, now: Made) -> float:
        """Return the limit on the distance: that of the record, else the stricter one of the two schemes."""
        if self.max_rel_l2 is not None:
            return self.max_rel_l2
        limits = (Limits().or_default(each.scheme).rel_l2 for each in (self.made, now))
        return min(limit for limit in limits if limit is not None)


Goldens = Mapping[str, Golden]


@dataclass(frozen=True)
class Distance:
    """How far an output is from its golden latents, and lines of detail."""

    rel_l2: float
    detail: tuple[str, ...] = ()


def judge_golden(golden: Golden, now: Made, shape: tuple[int, ...], found: Distance, command: str) -> Verdict:
    """Judge an output by its distance to the golden latents; one of another shape is another output."""
    name, then, limit = one_line(golden.subject.name), one_line(golden.made.created), golden.limit(now)
    advice = f"{_changed(golden.made, now)}; look for what changed, or accept it with: {command}"
    if shape != golden.shape:
        return Verdict(
            Status.FAIL,
            CODE,
            f"{name}: the latents are of shape {shape}, the golden ones of {then} of {golden.shape}; {advice}",
        )
    # `not <=` also catches NaN.
    if not found.rel_l2 <= limit:
        return Verdict(
            Status.FAIL,
            CODE,
            f"{name}: the output is not that of {then}: relative L2 {found.rel_l2:.4g} to the golden latents, "
            f"the limit is at most {limit:.4g}; {advice}",
            found.detail,
        )
    return Verdict(
        Status.PASS,
        CODE,
        f"{name}: the output is that of {then} (relative L2 {found.rel_l2:.4g}, at most {limit:.4g})",
        found.detail,
    )


def missing(subject: GoldenSubject, goldens: Goldens, *, strict: bool, command: str) -> Verdict:
    """Say that there are no golden latents of an output, and which there are of the same thing."""
    relatives = [golden.subject for golden in goldens.values()]
    alike = [each for each in relatives if {*each.differences(subject)} <= {*MAY_DIFFER, "adapters"}]
    near = min(alike, key=lambda each: len(each.differences(subject)), default=None)
    what = f"no golden latents of {one_line(subject.name)} on {subject.gpu} with this model and request"
    if near is not None:
        told = ", ".join(
            f"{name} {_value(near, name)} (here {_value(subject, name)})" for name in near.differences(subject)
        )
        what = f"the golden latents of {one_line(subject.name)} are of {told}"
    return untold(MISSING, what, strict=strict, command=command)


def _value(subject: GoldenSubject, name: str) -> str:
    found = getattr(subject, name)
    return one_line(found if isinstance(found, str) else ", ".join(found)) or "none"


def untold(code: Code, what: str, *, strict: bool, command: str, remedy: str = "") -> Verdict:
    """Say what golden latents cannot tell; strictly, that fails. ``remedy`` is what else could be done."""
    status = Status.FAIL if strict else Status.SKIPPED
    return Verdict(status, code, f"{what}; {remedy}make them anew with: {command}")


def not_finite(name: str, wrong: int, count: int) -> Verdict:
    """Fail an output that has values which are no numbers: it is no picture, whatever is stored."""
    return Verdict(
        Status.FAIL,
        NOT_FINITE,
        f"{one_line(name)}: {wrong} of {count} values of the latents are not finite, so nothing can be held to "
        "them; look for an overflow (a dtype or a scheme that is too narrow)",
    )


def _changed(then: Made, now: Made) -> str:
    changed = ", ".join(one_line(each) for each in now.since(then))
    return f"since then {changed}" if changed else f"versions and steps are those of then ({_told(now)})"


def _told(made: Made) -> str:
    return ", ".join(f"{name} {version}" for name, version in made.versions.items())
