"""Findings that a comment in the source suppresses."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.noqa import suppresses


def unsuppressed(findings: Iterable[Finding], source: str) -> list[Finding]:
    """Return the findings that no comment on their lines suppresses: it may stand on any line of the call."""
    found = list(findings)
    if not found or "noqa" not in source.lower():
        return found
    comments = _comments(source)
    return [each for each in found if not _suppressed(each, comments)]


def _suppressed(finding: Finding, comments: dict[int, str]) -> bool:
    lines = range(finding.line, max(finding.line, finding.end_line) + 1)
    return any(suppresses(comments.get(line, ""), finding.code) for line in lines)


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
