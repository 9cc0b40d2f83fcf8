"""The page of the command ``loraperf``, from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from docs.generate.markdown import fenced, page, table
from pytest_loraperf.commands import arguments, exits


def command() -> str:
    """Return the page of the command line."""
    parser = arguments.parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    said = {choice.dest: choice.help or "" for choice in commands._get_subactions()}  # noqa: SLF001
    return page(
        "The command `loraperf`",
        "pytest_loraperf/commands/arguments.py or exits.py",
        "`loraperf --version` shows the version, `loraperf COMMAND --help` what is below. `loraperf bench` stops "
        f"a comparison that cannot tell after {arguments.BENCH_ROUNDS} rounds, unless `--rounds` says otherwise.",
        "## Exit codes",
        table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in exits.MEANINGS.items())),
        "pytest has exit codes of its own: a failed gate is a failed test (1), and a marker, an option or an ini "
        "value that cannot be used is a usage error (4).",
        *(part for name, sub in commands.choices.items() for part in _command(name, said[name], sub)),
    )


def _command(name: str, said: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = [each for each in parser._actions if each.dest != "help"]  # noqa: SLF001 - its arguments
    given = [_shown(each) for each in actions if not each.option_strings]
    yield f"## `loraperf {name}`"
    yield fenced(" ".join(["loraperf", name, *given, "[OPTIONS]"]), "text")
    yield f"{said[0].upper()}{said[1:]}. {parser.epilog}"
    yield table(("argument", ""), ((f"`{_shown(each)}`", _said(each)) for each in actions))


def _said(action: argparse.Action) -> str:
    said = (action.help or "").replace("%%", "%")
    if action.choices:
        said = f"{said}: {', '.join(f'`{choice}`' for choice in action.choices)}".removeprefix(": ")
    return said


def _shown(action: argparse.Action) -> str:
    several = " …" if action.nargs == "+" else ""
    if not action.option_strings:
        return f"{action.metavar}{several}"
    metavar = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{metavar}"
