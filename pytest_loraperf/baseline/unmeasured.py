"""The records of a baseline that no test of a run measured. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pytest_loraperf.baseline.golden import MAY_DIFFER, GoldenSubject
from pytest_loraperf.baseline.record import VERSIONS, Baseline, Subject
from pytest_loraperf.report.table import one_line

NAMES = 3
SHOWN = 60


def unmeasured(
    baseline: Baseline, subjects: Collection[Subject], goldens: Collection[GoldenSubject]
) -> Iterator[str]:
    """Yield a line where a baseline has records that a whole run measured nothing of.

    Those of other GPUs are for runs on them, as those of other schemes are, and those of other versions of what
    was measured are told with its verdict. Where nothing was measured, all are meant: the GPU is not known.
    """
    gpus = {each.gpu for each in subjects} | {each.gpu for each in goldens}
    left = [
        *(
            each.subject.name
            for each in baseline.records.values()
            if not any(set(each.subject.differences(known)) <= set(VERSIONS) for known in subjects)
            and (not gpus or each.subject.gpu in gpus)
        ),
        *(
            f"{each.subject.name} (latents)"
            for each in baseline.goldens.values()
            if not any(set(each.subject.differences(known)) <= set(MAY_DIFFER) for known in goldens)
            and (not gpus or each.subject.gpu in gpus)
        ),
    ]
    if left:
        names = ", ".join(one_line(name)[:SHOWN] for name in left[:NAMES]) + (", …" if len(left) > NAMES else "")
        count = f"{len(left)} records" if len(left) > 1 else "1 record"
        yield (
            f"{count} measured by no test of this run ({names}): the tests failed, were skipped or are gone; "
            "take out what is of no use"
        )
