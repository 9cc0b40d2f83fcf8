"""What a gate says: a status, a code, one line, and a titled section of detail."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pytest_loraperf.verdict.codes import Code


class Status(StrEnum):
    """The outcome of a gate."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Verdict:
    """The outcome of one gate on one test, with its reason.

    ``code`` names the gate, one of ``codes.MEANINGS``;
    ``message`` is one line: what was observed, the limit, what to do; ``detail`` is a section of lines.
    ``tighter`` is what to write instead of a gate that passed by far; None where it could not be stricter.
    """

    status: Status
    code: Code
    message: str
    detail: tuple[str, ...] = ()
    tighter: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the gate holds."""
        return self.status in (Status.PASS, Status.SKIPPED)
