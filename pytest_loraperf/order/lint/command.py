"""``loraperf lint``: fix what is asked for, lint, print."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.order.lint.findings import selected
from pytest_loraperf.order.lint.fix import fix_file
from pytest_loraperf.order.lint.formats import FORMATS
from pytest_loraperf.order.lint.run import lint_paths
from pytest_loraperf.order.lint.source import python_files


def run_lint(
    paths: Iterable[Path],
    select: Iterable[str],
    ignore: Iterable[str],
    output_format: str,
    *,
    fix: bool,
    write: Callable[[str], None],
    tell: Callable[[str], None],
) -> bool:
    """Lint; return whether anything was found. ``write`` gets the report, ``tell`` what was fixed.

    Raises:
        LoraperfError: A path that is not there or has no Python file, or a word that names no code: before any
            file is changed.
    """
    codes = selected(select, ignore)
    paths = list(paths)
    files = list(python_files(paths))
    if not files:
        raise LoraperfError(
            f"no Python file in {', '.join(map(str, paths))}: name files, or folders that have some"
        )
    if fix:
        removed = {file: count for file in files if (count := fix_file(file, codes))}
        if removed:
            tell(f"fixed {sum(removed.values())} in {', '.join(map(str, removed))}; look at the changes")
    findings = lint_paths(files, select, ignore)
    for line in FORMATS[output_format](findings):
        write(line)
    return bool(findings)
