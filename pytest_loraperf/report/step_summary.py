"""A run in Markdown, for the summary of a step in GitHub Actions, and how it gets there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pytest_loraperf.report.markdown import code, escape, markdown_table
from pytest_loraperf.report.results import Results, VerdictRecord
from pytest_loraperf.report.table import one_line, shortened

LIMIT = 2**20
"""Bytes of a step's summary; GitHub shows nothing of one that is larger."""
LONGEST_CELL = 500
"""Characters of a cell; a longer one, such as a test id of a whole prompt, is cut in its middle."""
WORST_FIRST = ("FAIL", "INCONCLUSIVE", "SKIPPED", "PASS")


def run_markdown(results: Results) -> str:
    """Return the verdicts, the worst first, then the strategy table, gates that could be stricter, and notes."""
    return "\n".join(_lines(results))


def append_summary(path: Path, text: str) -> None:
    """Append to the summary, cut at a line where it would be too large, with a line that says so.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("ab") as file:
        # Other steps of this job have files of their own, but other commands of this step write to this one.
        before = os.fstat(file.fileno()).st_size
        file.write(fitting(text, LIMIT - before))


def fitting(text: str, room: int) -> bytes:
    """Return the text in UTF-8, of its lines as many as fit with one that says how many do not."""
    lines = [f"{line}\n".encode(errors="backslashreplace") for line in ("", *text.split("\n"))]
    if sum(map(len, lines)) <= room:
        return b"".join(lines)
    kept = list(lines)
    while kept and sum(map(len, kept)) + len(_cut_line(len(lines) - len(kept))) > room:
        kept.pop()
    said = _cut_line(len(lines) - len(kept))
    return b"".join((*kept, said)) if len(said) <= room else b""


def _cut_line(missing: int) -> bytes:
    return f"\n… {missing} more lines: GitHub shows no summary of a step over 1 MiB\n".encode()


def _lines(results: Results) -> Iterator[str]:
    yield f"### pytest-loraperf: {_outcome(results)}"
    if results.verdicts:
        yield from ("", "| test | gate | verdict | found |", "| --- | --- | --- | --- |")
        for verdict in sorted(results.verdicts, key=_badness):
            gate = f"{_text(verdict.code)} | {_text(verdict.status)}"
            yield f"| {_code(verdict.nodeid)} | {gate} | {_text(verdict.message)} |"
    if results.strategies:
        yield from ("", markdown_table(results))
    notes = [*_tighter(results), *map(_text, results.notes)]
    if notes:
        yield from ("", *(f"- {note}" for note in notes))


def _outcome(results: Results) -> str:
    counts = {status: sum(each.status == status for each in results.verdicts) for status in WORST_FIRST}
    words = {"FAIL": "failed", "INCONCLUSIVE": "cannot tell", "SKIPPED": "skipped", "PASS": "passed"}
    told = [f"{count} {words[status]}" for status, count in counts.items() if count]
    return ", ".join(told) or "no verdict"


def _tighter(results: Results) -> Iterator[str]:
    for each in results.verdicts:
        if each.tighter is not None:
            gate = f"{_code(each.nodeid)} passed its {_text(each.code)} gate by far"
            yield f"{gate}; it could be: {_code(each.tighter)}"


def _badness(verdict: VerdictRecord) -> int:
    return WORST_FIRST.index(verdict.status) if verdict.status in WORST_FIRST else 0


def _text(text: str) -> str:
    return escape(_readable(text))


def _code(text: str) -> str:
    return code(_readable(text))


def _readable(text: str) -> str:
    return shortened(one_line(text), LONGEST_CELL)
