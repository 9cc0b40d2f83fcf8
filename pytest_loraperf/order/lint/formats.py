"""The findings as text, JSON, GitHub annotations and SARIF."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pytest_loraperf.order.lint.findings import NAMES, Finding
from pytest_loraperf.order.lint.source import read
from pytest_loraperf.order.rules import RULES, UNREADABLE
from pytest_loraperf.workflow import command

_KEYS = ("path", "line", "col", "code", "name", "message")
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield each finding with its line of the source, and at last how many there are."""
    sources: dict[str, list[str]] = {}
    for each in findings:
        if each.path not in sources:
            text = read(Path(each.path))
            sources[each.path] = text.splitlines() if isinstance(text, str) else []
        yield from finding_lines(each, sources[each.path])
    if findings:
        files = len({each.path for each in findings})
        yield f"{_count(len(findings), 'finding')} in {_count(files, 'file')}"


def finding_lines(finding: Finding, source: Sequence[str]) -> Iterator[str]:
    """Yield one finding and, where there is one, its line of the source."""
    yield f"{finding.path}:{finding.line}:{finding.col + 1}: {finding.code} [{finding.name}] {finding.message}"
    if finding.line <= len(source):
        number = f"{finding.line:>6} | "
        yield f"{number}{source[finding.line - 1]}"
        yield f"{' ' * (len(number) - 2)}| {' ' * finding.col}^"


def as_json(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield one JSON list; ``line`` counts from 1, ``col`` from 0."""
    yield json.dumps([{key: getattr(each, key) for key in _KEYS} for each in findings], indent=2)


def as_github(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield workflow commands, which GitHub shows as annotations of the lines."""
    for each in findings:
        place = {"file": each.path, "line": each.line, "col": each.col + 1}
        yield command(each.severity, each.message, **place, title=f"{each.code} {each.name}")


def as_sarif(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield one SARIF 2.1.0 log."""
    help_texts = {rule.code: rule for rule in RULES}
    rules = [
        {
            "id": code,
            "name": name,
            "shortDescription": {"text": _summary(code)},
            "help": {"text": help_texts[code].fix if code in help_texts else "make the file readable"},
        }
        for code, name in NAMES.items()
    ]
    results = [
        {
            "ruleId": each.code,
            "level": each.severity,
            "message": {"text": each.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": Path(each.path).as_posix()},
                        "region": {"startLine": each.line, "startColumn": each.col + 1},
                    }
                }
            ],
        }
        for each in findings
    ]
    driver = {"name": "loraperf", "rules": rules}
    log = {
        "version": "2.1.0",
        "$schema": _SARIF_SCHEMA,
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    yield json.dumps(log, indent=2)


FORMATS: Mapping[str, Callable[[Sequence[Finding]], Iterator[str]]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}


def _summary(code: str) -> str:
    if code == UNREADABLE:
        return "A file that cannot be read or parsed cannot be linted."
    return next((rule.__doc__ or "").partition("\n")[0] for rule in RULES if rule.code == code)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
