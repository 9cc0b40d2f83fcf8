"""The strategy table in Markdown, and its place in a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import Results
from pytest_loraperf.report.table import NONE, NOTHING, cells, footnotes, one_line, with_something


def markdown_table(results: Results | Sequence[tuple[str, Results]]) -> str:
    """Return the whole table as GitHub reads it, with where it was measured and its footnotes.

    Of several results, each comes under its title.
    """
    if isinstance(results, Results):
        return "\n".join(_lines(results))
    return "\n\n".join(f"**{escape(one_line(title))}**\n\n{markdown_table(each)}" for title, each in results)


def replace_block(text: str, name: str, body: str) -> str:
    """Return the page with ``body`` between ``<!-- loraperf:NAME -->`` and ``<!-- /loraperf:NAME -->``.

    Raises:
        LoraperfError: the two lines are not there once each, in this order, or the body holds one of them.
    """
    start, end = f"<!-- loraperf:{name} -->", f"<!-- /loraperf:{name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise LoraperfError(
            f"block {name!r}: the page must hold {start} and then {end}, once each; write both where it belongs"
        )
    if start in body or end in body:
        raise LoraperfError(f"block {name!r}: its text holds {start} or {end}; take that line out")
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    return f"{before}{start}\n{body.strip()}\n{end}{after}"


def _lines(results: Results) -> Iterator[str]:
    if not results.strategies:
        yield NOTHING
        return
    columns = with_something(results)
    titles, *rows = cells(results, columns)
    yield markdown_row(titles)
    yield markdown_row(["---:" if column.right else "---" for column in columns])
    for name, steps, *figures in rows:
        yield markdown_row([code(name), code(steps), *figures])
    yield ""
    yield f"- {escape(one_line(_place(results)))}"
    for note in footnotes(results, titles):
        yield f"- {escape(note)}"
    from pytest_loraperf.report.ranking import ranking_lines  # noqa: PLC0415 - imports numpy

    for line in ranking_lines(results):
        yield f"- {escape(line)}"


def markdown_rows(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, its titles first; the first two columns and the last are read from the left."""
    titles, *body = rows
    left = (0, 1, len(titles) - 1)
    yield markdown_row([escape(title) for title in titles])
    yield markdown_row(["---" if place in left else "---:" for place in range(len(titles))])
    for row in body:
        yield markdown_row([escape(one_line(cell)) for cell in row])


def _place(results: Results) -> str:
    machine = results.machine
    driver = f", driver {machine.driver}" if machine.driver else ""
    software = f"torch {machine.torch}, {machine.backend}, pytest-loraperf {results.plugin_version}"
    return f"{results.model} on {machine.name}{driver}, {software}, {results.created}"


def markdown_row(texts: Sequence[str]) -> str:
    """Return a line of a table from cells that are Markdown already."""
    return f"| {' | '.join(texts)} |"


def code(text: str) -> str:
    """Return text as code, which GitHub reads nothing into, and which does not end a table's cell."""
    if text == NONE:
        return text
    # A backtick would end the code, and a bar the cell even inside it.
    inside = text.replace("`", "'").replace("|", r"\|")
    return f"`{inside}`"


def escape(text: str) -> str:
    """Return text that GitHub shows as it is: no markup, no mathematics, and no end of a table's cell."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", text)
