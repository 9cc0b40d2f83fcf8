"""What the pages of the documentation show is run: files are written, commands give what stands below them."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

import pytest_loraperf.backends.diffsynth
import pytest_loraperf.run.gathering
import pytest_loraperf.run.judging
import pytest_loraperf.run.race  # noqa: F401 - torch can be imported only once, and inner runs share this process
from pytest_loraperf.cli import main
from pytest_loraperf.commands.arguments import parser
from pytest_loraperf.options import OPTIONS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for folder in ("tutorial", "how-to", "explanation") for page in sorted((DOCS / folder).glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)\n```", re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
UNIT = re.compile(r"\* *(?:[KMG]?B|[mu]?s|min)\b")
FILE = re.compile(r"# ([\w./-]+\.(?:py|toml|ini))\n")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def is_run(block: tuple[str, str]) -> bool:
    return block[0] == "text" and block[1].startswith("$ ")


SHOWING = [page for page in PAGES if any(map(is_run, blocks(page)))]


def pattern(line: str) -> str:
    """A line in which every number may be another, with its unit, and runs of spaces, dashes and = others too."""
    text = re.sub(r", \d+ warnings?", "*", re.sub(r"([\[?])", "[\\1]", line))
    text = UNIT.sub("*", NUMBER.sub("*", text))
    return re.sub(r" {2,}|-{3,}|={3,}|_{3,}", "*", text).strip()


def show_the_same(shown: list[str], said: list[str]) -> list[str]:
    """The shown lines that are not in what was said, each after the one before."""
    rest, missing = iter(said), []
    for line in shown:
        if line == "...":
            continue
        wanted = pattern(line)
        if not any(fnmatch.fnmatchcase(each.strip(), wanted) for each in rest):
            missing.append(line)
            rest = iter(said)
    return missing


def output_of(command: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> list[str]:
    program, *arguments = shlex.split(command)
    if program == "pytest":
        result = pytester.runpytest(*arguments)
        capsys.readouterr()
        return [*result.outlines, *result.errlines]
    assert program == "loraperf"
    capsys.readouterr()
    main(arguments)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.stem)
def test_a_page_shows_what_its_commands_say(
    page: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:asyncio -p no:rerunfailures -p no:benchmark")
    for name in ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    for language, text in blocks(page):
        if found := FILE.match(text):
            file = pytester.path / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text[found.end() :], encoding="utf-8")
        elif is_run((language, text)):
            command, *shown = text.removeprefix("$ ").splitlines()
            said = output_of(command, pytester, capsys)
            assert show_the_same(shown, said) == [], "\n".join([f"$ {command}", *said])


def test_a_page_that_shows_something_else_is_found() -> None:
    said = ["F   [100%]", "loraperf vram: fused needs 3 MB", "1 failed in 2.00s"]
    assert show_the_same(["F      [100%]", "...", "1 failed in 11.30s"], said) == []
    assert show_the_same(["1 failed in 2.00s", "F   [100%]"], said) == ["F   [100%]"]
    assert show_the_same(["1 passed in 2.00s"], said) == ["1 passed in 2.00s"]


def test_pages_are_found() -> None:
    assert {page.stem for page in SHOWING} >= {"first-gate", "adopt", "baselines", "strategy"}


COMMANDS = {
    command: page.stem
    for page in (*PAGES, DOCS / "noise.md")
    for command in re.findall(r"^\$ (loraperf .+?)(?: +#.*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_a_page_names_is_understood(command: str) -> None:
    assert parser().parse_args(shlex.split(command)[1:]).name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w-])--(?:loraperf|gpu)-[a-z-]+[a-z]", text)
    assert sorted(set(named) - {option.flag for option in OPTIONS}) == []
    ini = re.findall(r"^(loraperf_\w+|gpu_\w+) = ", text, re.MULTILINE)
    assert sorted(set(ini) - {option.ini for option in OPTIONS}) == []
