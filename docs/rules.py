"""Write a page for each code of the order guard, and their index: ``python docs/rules.py [--check]``."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_loraperf.order.lint.findings import EVERY, NAMES, WARNINGS
from pytest_loraperf.order.lint.formats import finding_lines
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.rules import RULES, UNREADABLE
from pytest_loraperf.order.rules.base import Rule

PAGES = Path(__file__).with_suffix("")
WRITTEN = "<!-- Written by docs/rules.py; change the rule instead. -->"
INDEX = """\
# The codes of the order guard

What the guard of a test run, `loraperf lint`, `pytest --loraperf-lint` and the flake8 plugin find. A code that is
off by default is advice: the linter gives it where it is selected. Each finding fails a run; the severity is what
the formats `github` and `sarif` say of it. An error is a wrong result or a crash; a warning costs time or memory,
or depends on the library's version.
"""
HEAD = (("code", "name", "by default", "severity", "what is found"), ("---",) * 5)


@dataclass(frozen=True)
class Page:
    """What one page says; ``why`` are the paragraphs after the ``summary``, ``found`` says when it is found."""

    code: str
    summary: str
    why: str
    fix: str
    applies_to: str
    found: str
    default: bool = True
    invalid: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.code} {NAMES[self.code]}"

    @property
    def severity(self) -> str:
        return "warning" if self.code in WARNINGS else "error"

    @property
    def switch(self) -> str:
        return "on" if self.default else "off"


UNREADABLE_PAGE = Page(
    code=UNREADABLE,
    summary="A file that cannot be read, parsed or followed to its end cannot be linted.",
    why=(
        "It cannot be opened, its text cannot be decoded, it is no Python of the version that runs the\n"
        "linter, or it has more branches than are followed, as one of 2193 files of diffusion libraries\n"
        "has; what was found until then is reported too. That is a finding, so that no file goes\n"
        "unlinted unnoticed: selecting other codes does not silence it; ignoring LRP001 does."
    ),
    fix="mend its syntax or its encoding, lint with the Python that it is written for, or split the file",
    applies_to="every Python file",
    found="by the linter",
    invalid=("pipe.load_lora(\n",),
)


def page_of(rule: Rule) -> Page:
    """Return the page of a rule: its docstring, its fix and its samples."""
    summary, _, why = (inspect.getdoc(rule) or "").replace("``", "`").partition("\n")
    if not rule.static:
        found = "at run time"
    else:
        found = "by the linter and at run time" if rule.default else "by the linter"
    return Page(
        code=rule.code,
        summary=summary,
        why=why.strip(),
        fix=rule.fix,
        applies_to=rule.applies_to,
        found=found,
        default=rule.default,
        invalid=rule.invalid,
        valid=rule.valid,
    )


def markdown(page: Page) -> str:
    """Return the text of a page."""
    return "\n\n".join(_parts(page)) + "\n"


def _parts(page: Page) -> Iterator[str]:
    yield WRITTEN
    yield f"# {page.title}"
    yield page.summary
    if page.why:
        yield _linked(page.why, page.code)
    yield (
        f"- severity: {page.severity}\n"
        f"- by default: {page.switch}\n"
        f"- found: {page.found}\n"
        f"- applies to: {_linked(page.applies_to, page.code)}"
    )
    yield f"## What to do\n\n{_sentence(page.fix)}"
    if page.invalid:
        yield "## Wrong"
        yield from (_wrong(sample, page.code) for sample in page.invalid)
    if page.valid:
        yield "## Right"
        yield from (_fenced("python", sample) for sample in page.valid)
    if page.code != UNREADABLE:
        yield f"## Where it is intended\n\n{_allowed(page)}"
    yield "[All codes](README.md)"


def _wrong(sample: str, code: str) -> str:
    found = lint_source(sample, "app.py", {code})
    said = "\n".join(line for each in found for line in finding_lines(each, sample.splitlines()))
    return f"{_fenced('python', sample)}\n\n{_fenced('text', said)}"


def _allowed(page: Page) -> str:
    comment = f"`# noqa: {page.code} - the reason` on a line of the call"
    marker = f'`@pytest.mark.allow_order("{page.code}", reason="…")` on the test'
    return f"Write {comment}, or {marker}." if page.default else f"Write {comment}."


def _linked(text: str, own: str) -> str:
    return re.sub(r"\bLRP\d{3}\b", lambda code: code[0] if code[0] == own else f"[{code[0]}]({code[0]}.md)", text)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def index(pages: list[Page]) -> str:
    """Return the text of the index."""
    rows = [
        (f"[{each.code}]({each.code}.md)", f"`{NAMES[each.code]}`", each.switch, each.severity, each.summary)
        for each in pages
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (*HEAD, *rows))
    return f"{WRITTEN}\n\n{INDEX}\n{table}\n"


def rendered() -> dict[str, str]:
    """Return the text of each file by its name."""
    pages = [UNREADABLE_PAGE, *map(page_of, RULES)]
    assert [page.code for page in pages] == list(EVERY)
    return {f"{page.code}.md": markdown(page) for page in pages} | {"README.md": index(pages)}


def main() -> int:
    """Rewrite the pages, or with ``--check`` say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something would change")
    given = parser.parse_args()
    before = {file.name: file.read_text(encoding="utf-8") for file in PAGES.glob("*.md")}
    after = rendered()
    if given.check:
        stale = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if stale:
            print(f"stale: {', '.join(stale)}; run: python docs/rules.py")
        return int(bool(stale))
    PAGES.mkdir(exist_ok=True)
    for name in before.keys() - after.keys():
        (PAGES / name).unlink()
    for name, text in after.items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
