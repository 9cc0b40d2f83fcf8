"""A run's baseline: its file, what the run measured of it, and what is accepted at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_loraperf.baseline.file import read_baseline, update_baseline
from pytest_loraperf.baseline.latents import Latents
from pytest_loraperf.baseline.record import Baseline, Measured
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.options import Settings
from pytest_loraperf.report.table import one_line
from pytest_loraperf.writable import check_writable

if TYPE_CHECKING:
    from pytest_loraperf.baseline.judge import Terms
    from pytest_loraperf.report.results import VerdictRecord
    from pytest_loraperf.session import Session, TestRecord
    from pytest_loraperf.verdict import Verdict

UPDATE = "--loraperf-update-baseline"
ENOUGH = 5
"""Samples of each of two runs below which the rank-sum test cannot be sure enough, whatever they are."""


@dataclass
class Stored:
    """The baseline that a run is held to, or that it updates.

    ``measured`` is what each test measured, by its node id, ``latents`` what it generated, ``diff`` what an update
    changed in the file; ``partial`` is whether tests were deselected. Tests inject ``today``.
    """

    path: Path
    baseline: Baseline
    update: bool
    strict: bool
    max_age_days: int
    today: date = field(default_factory=date.today)
    measured: dict[str, Measured] = field(default_factory=dict)
    diff: list[str] = field(default_factory=list)
    partial: bool = False
    latents: Latents = field(init=False)

    def __post_init__(self) -> None:
        folder = self.path.with_name(f"{self.path.stem}.latents")
        self.latents = Latents(folder, self.baseline.goldens, self.update)

    def forget(self, nodeid: str) -> None:
        """Forget what a test measured and generated that runs again."""
        self.measured.pop(nodeid, None)
        self.latents.taken.pop(nodeid, None)

    def judge(self, session: Session, record: TestRecord) -> Iterator[Verdict]:
        """Yield the verdicts on a test; where the run updates, none on what it would be held to."""
        from pytest_loraperf.baseline.judge import Terms  # noqa: PLC0415 - imports numpy
        from pytest_loraperf.verdict.types import Status  # noqa: PLC0415 - only where a test is judged

        terms = Terms(self.strict, self.today, f"{session.command} {UPDATE}", self.max_age_days)
        for judged in (self.latents.judge, self._times):
            for verdict in judged(session, record, terms):
                if verdict.status is Status.SKIPPED:
                    session.notes[f"warning: {verdict.message}"] = None
                yield verdict

    def _times(self, session: Session, record: TestRecord, terms: Terms) -> Iterator[Verdict]:
        from pytest_loraperf.baseline.judge import judge_baseline  # noqa: PLC0415 - imports numpy
        from pytest_loraperf.baseline.measure import measured  # noqa: PLC0415 - only where a test is judged

        found = measured(session, record, self.today)
        if found is None:
            return
        self.measured[record.nodeid] = found
        if not self.update:
            yield from judge_baseline(found, self.baseline, terms)

    def finish(self, verdicts: Iterable[VerdictRecord]) -> Iterator[str]:
        """Write what passed into the file; yield what was accepted, what was not, and the diff.

        Raises:
            LoraperfError: the file cannot be read or written.
        """
        from pytest_loraperf.baseline.judge import changes, with_accepted  # noqa: PLC0415 - imports numpy

        wrong = {verdict.nodeid for verdict in verdicts if verdict.status not in ("PASS", "SKIPPED")}
        failed = {found.subject.key for nodeid, found in self.measured.items() if nodeid in wrong}
        accepted = [found for found in self.measured.values() if found.subject.key not in failed]
        goldens = self.latents.accepted(wrong)
        seen: list[Baseline] = []

        def change(before: Baseline) -> Baseline:
            seen.extend((before, self.latents.store(with_accepted(before, accepted), goldens)))
            return seen[-1]

        if accepted or goldens:
            update_baseline(self.path, change)
            self.diff = list(changes(*seen))
        else:
            yield (
                f"baseline {self.path}: nothing was accepted, since no test with a gate on time passed, "
                "nor one that generates"
            )
        if accepted:
            names = one_line(", ".join(dict.fromkeys(found.subject.name for found in accepted)))
            yield f"baseline {self.path}: accepted {names}; commit it"
            yield from _too_few(self.path, accepted)
        for found in self.measured.values():
            if found.subject.key in failed:
                name = one_line(found.subject.name)
                yield f"baseline {self.path}: {name} is not accepted, since a gate of its tests failed"
        yield from self.latents.told(goldens, wrong)

    def unmeasured(self) -> Iterator[str]:
        """Yield a line where the baseline has records that no test of this run measured."""
        from pytest_loraperf.baseline.unmeasured import unmeasured  # noqa: PLC0415 - once in a run

        subjects = [found.subject for found in self.measured.values()]
        goldens = [taken.golden.subject for taken in self.latents.taken.values()]
        yield from (f"baseline {self.path}: {line}" for line in unmeasured(self.baseline, subjects, goldens))


def _too_few(path: Path, accepted: Iterable[Measured]) -> Iterator[str]:
    for found in accepted:
        count = len(found.sampled.samples_s)
        if count < ENOUGH:
            yield (
                f"warning: baseline {path}: {one_line(found.subject.name)} has {count} samples, and no run can be "
                f"told from fewer than {ENOUGH}; give it more time (--loraperf-max-seconds)"
            )


def open_stored(settings: Settings) -> Stored | None:
    """Read the baseline that the options name.

    Raises:
        LoraperfError: it cannot be read, or there is none to update.
    """
    if settings.baseline is None:
        if settings.update_baseline:
            raise LoraperfError(f"{UPDATE}: no file to update; name it with --loraperf-baseline=FILE")
        return None
    path = settings.baseline.absolute()  # wherever tests go
    if settings.update_baseline:
        check_writable(path, "--loraperf-baseline")
    found = read_baseline(path)
    return Stored(
        path,
        found,
        settings.update_baseline,
        settings.strict or in_ci(),
        settings.baseline_days,
    )


def in_ci() -> bool:
    """Whether this runs in CI, as CI systems say by the variable ``CI``."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}
