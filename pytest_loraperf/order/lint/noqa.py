"""``# noqa: LRP102 - reason``: a finding that its author knows about."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable

from pytest_loraperf.order.lint.findings import Finding

_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)
EVERYTHING = frozenset({""})


def unsuppressed(findings: Iterable[Finding], source: str) -> list[Finding]:
    """Return the findings that no comment on their lines suppresses.

    ``# noqa`` suppresses all on its line, ``# noqa: LRP102`` that code (or those that start with it: ``LRP1``);
    what follows is the reason. The comment may stand on any line of the call.
    """
    found = list(findings)
    if not found or "noqa" not in source.lower():
        return found
    comments = _comments(source)
    return [each for each in found if not _suppressed(each, comments)]


def _suppressed(finding: Finding, comments: dict[int, frozenset[str]]) -> bool:
    lines = range(finding.line, max(finding.line, finding.end_line) + 1)
    return any(finding.code.startswith(code) for line in lines for code in comments.get(line, ()))


def _comments(source: str) -> dict[int, frozenset[str]]:
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := _NOQA.search(token.string)):
            codes = match["codes"]
            found[token.start[0]] = frozenset(re.split(r"[,\s]+", codes.upper())) if codes else EVERYTHING
    return found
