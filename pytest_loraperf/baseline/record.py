"""What a baseline stores: what was measured, on which class of machine, and its samples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.schema import to_plain
from pytest_loraperf.report.table import one_line

if TYPE_CHECKING:
    from pytest_loraperf.baseline.golden import Golden

SHOWN = 200
"""Letters of a key that are there to be read; the digest after them tells keys apart."""
VERSIONS = ("driver", "torch", "backend")
"""The fields of a subject that change when something is installed anew."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was measured and on which class of machine; equal subjects are comparable.

    ``name`` is that of the strategy, or of the callable of test ``test``; ``driver`` is the major version.
    """

    name: str
    test: str = ""
    gpu: str
    driver: str = ""
    torch: str
    backend: str = ""
    model: str = ""
    requests: tuple[Mapping[str, Any], ...] = ()
    adapters: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A readable name, and a digest of every field."""
        digest = hashlib.sha256(json.dumps(to_plain(self), sort_keys=True).encode()).hexdigest()
        where = f" of {self.test}" if self.test else ""
        return f"{one_line(f'{self.name}{where} on {self.gpu}')[:SHOWN]} [{digest[:12]}]"

    def differences(self, other: Subject) -> Iterator[str]:
        """Yield the names of the fields in which two subjects differ."""
        ours, theirs = to_plain(self), to_plain(other)
        yield from (each.name for each in fields(self) if ours[each.name] != theirs[each.name])


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Seconds, round by round, of the subject and of the arm ``reference`` (empty where there is none).

    ``created`` is the day, ``YYYY-MM-DD``.

    Raises:
        LoraperfError: a time is not positive, or the two are not of the same rounds, or have no ratio.
    """

    created: str
    samples_s: tuple[float, ...]
    reference: str = ""
    reference_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.samples_s or any(seconds <= 0 for seconds in (*self.samples_s, *self.reference_s)):
            raise LoraperfError("samples are positive seconds, and at least one")
        if self.reference_s and len(self.reference_s) != len(self.samples_s):
            raise LoraperfError("samples and those of the reference are of the same rounds")
        if any(not 0 < ratio < math.inf for ratio in self.ratios):
            raise LoraperfError("samples and those of the reference are too far apart to be times")

    @property
    def ratios(self) -> tuple[float, ...]:
        """The times over those of the reference, round by round."""
        return tuple(mine / other for mine, other in zip(self.samples_s, self.reference_s, strict=False))

    @property
    def median_s(self) -> float:
        """The median time in seconds."""
        return median(self.samples_s)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One subject's stored samples: the last ones that were accepted, and the first ones, the anchor.

    ``max_slowdown`` and ``max_erosion`` (0.05: 5 %) are how much slower than those it may be, None for the
    default; a slowdown of less than ``allow_s`` seconds is let pass. All three are edited by hand.
    """

    subject: Subject
    last: Sampled
    anchor: Sampled
    max_slowdown: float | None = None
    max_erosion: float | None = None
    allow_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_slowdown", "max_erosion", "allow_s"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise LoraperfError(f"{name} is {value}; 0 or more is allowed")


@dataclass(frozen=True)
class Measured:
    """What this run measured of a subject."""

    subject: Subject
    sampled: Sampled


Records = Mapping[str, Record]


@dataclass(frozen=True)
class Baseline:
    """The records of a file by key: of times, and of golden latents."""

    records: Records = field(default_factory=dict)
    goldens: Mapping[str, Golden] = field(default_factory=dict)

    def relatives(self, subject: Subject) -> list[Record]:
        """Return the records of the same thing on the same GPU with other versions, the nearest first."""
        found = ((list(each.subject.differences(subject)), each) for each in self.records.values())
        near = [(names, each) for names, each in found if set(names) <= set(VERSIONS)]
        return [each for _, each in sorted(near, key=lambda pair: len(pair[0]))]
