"""Reading a source: what is skipped early is still checked."""

from __future__ import annotations

import pytest

from pytest_loraperf.order.lint.source import parse


def test_a_source_without_the_words_is_parsed_without_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_tree(*_: object) -> None:
        raise AssertionError("a tree was built")

    monkeypatch.setattr("ast.parse", no_tree)
    assert parse("from __future__ import annotations\nnonlocal_ = 1\n", "a.py") is None
    with pytest.raises(AssertionError, match="a tree was built"):
        parse("x = (\n", "a.py")


@pytest.mark.parametrize(
    "source", ["from __future__ import parsed\n", "nonlocal x\n", "def f(a, a): pass\n", "return\n"]
)
def test_what_the_parser_takes_is_readable(source: str) -> None:
    assert parse(source, "a.py") is None
