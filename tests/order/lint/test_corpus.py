"""Precision and recall on the corpus: small cases, each with what is expected of it in its first lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_loraperf.order.lint.findings import EVERY
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.rules import RULES
from pytest_loraperf.order.rules.base import Rule

CASES = sorted((Path(__file__).parents[2] / "corpus" / "cases").glob("*.py.txt"))
EXPECTED = re.compile(r"^# expect: (?:clean|(\d+) (LRP\d{3}))$", re.MULTILINE)
STATIC = [rule for rule in RULES if rule.static]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name.removesuffix(".py.txt"))
def test_case(case: Path) -> None:
    source = case.read_text(encoding="utf-8")
    expected = [(int(line), code) for line, code in EXPECTED.findall(source) if code]
    assert EXPECTED.match(source), "a case says what is expected of it"
    assert sorted((each.line, each.code) for each in lint_source(source, case.name)) == sorted(expected)


def test_the_corpus_is_large_and_half_of_it_is_from_the_field() -> None:
    from_the_field = [case for case in CASES if case.name.startswith(("notes_", "seed_"))]
    assert len(CASES) >= 100
    assert len(from_the_field) * 2 >= len(CASES)


@pytest.mark.parametrize("rule", STATIC, ids=lambda rule: rule.code)
def test_samples_of_a_rule(rule: Rule) -> None:
    for sample in rule.valid:
        assert rule.code not in {each.code for each in lint_source(sample, "sample.py", EVERY)}
        assert lint_source(sample, "sample.py") == []
    for sample in rule.invalid:
        assert rule.code in {each.code for each in lint_source(sample, "sample.py", EVERY)}
