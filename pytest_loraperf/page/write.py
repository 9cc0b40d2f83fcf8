"""The page, whole: one file that needs no other, no network and no script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pytest_loraperf.compare.history import Group, history_cells
from pytest_loraperf.page import content
from pytest_loraperf.page.axes import shortened
from pytest_loraperf.page.figures import figures, memories, trends
from pytest_loraperf.page.over_time import legend
from pytest_loraperf.page.palette import DARK, LIGHT, css_variables
from pytest_loraperf.report.results import Results
from pytest_loraperf.writable import write_whole

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 4000
"""Letters of any one text; what is longer is cut in the middle, and whole in the JSON."""


def write_page(path: Path, results: Results, groups: Sequence[Group] = ()) -> None:
    """Write the page whole or not at all.

    Args:
        path: of the file; folders that are missing are made.
        results: of the run that the page is about.
        groups: the history to show.

    Raises:
        LoraperfError: it cannot be written.
    """
    write_whole(path, "report", page(results, groups))


def page(results: Results, groups: Sequence[Group] = ()) -> str:
    """Return the page of a run, with the history of the groups."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"name": _name, "line": _line}
    style = _style()
    titles, rows = content.strategy_rows(results)
    text: str = environment.get_template("page.html").render(
        results=results,
        title=_title(results),
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        facts=list(content.facts(results)),
        tiles=list(content.tiles(results)),
        titles=titles,
        rows=rows,
        table_notes=content.table_notes(results),
        figures=list(figures(results)),
        memories=memories(results),
        memories_legend=legend(results),
        few_layers=content.few_layers(results),
        claims=content.claims(results),
        judged=content.judged(results),
        taken=list(content.taken(results)),
        history=[(group, history_cells(group)) for group in groups],
        trends=trends(groups),
    )
    return text


def _title(results: Results) -> str:
    place = results.machine.name
    return f"{results.model} on {place}" if results.model and place else place or "nothing was measured"


def _style() -> str:
    """Return the style sheet: the colours, then the file."""
    light, dark = css_variables(LIGHT), css_variables(DARK)
    variables = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return variables + (_TEMPLATES / "page.css").read_text(encoding="utf-8")


def _name(text: str) -> Markup:
    """Return a name, cut where it is very long, that may break after an underscore."""
    return Markup("_<wbr>").join(shortened(text, content.NAME).split("_"))


def _line(text: str) -> Markup:
    """Return a line as it is, with its spaces, but for what is not printable."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text)[:_LONGEST])


def _printable(value: Any) -> Any:
    """Return what a template shows: text is one line, without control characters, and of bounded length."""
    return shortened(value, _LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value
