"""``loraperf report`` and ``loraperf history``: what stored results say, without measuring anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_loraperf.compare.compare import left_out
from pytest_loraperf.compare.history import TITLES, Group, Run, history, history_cells, history_lines, read_runs
from pytest_loraperf.compare.side_by_side import read_libraries, side_by_side
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.markdown import markdown_rows, markdown_table
from pytest_loraperf.report.results import Results
from pytest_loraperf.report.schema import to_plain
from pytest_loraperf.report.terminal import summary
from pytest_loraperf.writable import check_page, check_writable, write_whole

HISTORY = 1
"""The version of what ``loraperf history --json`` prints."""


@dataclass(frozen=True)
class Outputs:
    """What ``loraperf report`` writes."""

    html: Path | None = None
    markdown: Path | None = None
    png: Path | None = None

    def check(self, files: Sequence[Path]) -> None:
        """Refuse what could not be written.

        Raises:
            LoraperfError: a library lacks, a file cannot be written, is named twice, or is one of the results.
        """
        taken = {file.resolve(): "one of the results files" for file in files}
        for flag, path in (("--html", self.html), ("--markdown", self.markdown), ("--png", self.png)):
            if path is None:
                continue
            if (other := taken.setdefault(path.resolve(), f"the file of {flag}")) != f"the file of {flag}":
                raise LoraperfError(f"{flag}={path} is {other} too; name another")
            if flag == "--markdown":
                check_writable(path, flag)
            else:
                check_page(path, flag)


def run_report(
    files: Sequence[Path],
    outputs: Outputs,
    gpu_budget: int | None,
    max_slowdown: float,
    show: Callable[[str], None],
) -> None:
    """Report on the newest of the results files, with the others as its history.

    Without an output the table is shown instead. ``gpu_budget`` stands for that of the results.

    Raises:
        LoraperfError: a file is no results file, or an output cannot be written.
    """
    outputs.check(files)
    runs = read_runs(files)
    newest = runs[-1]
    results = newest.results if gpu_budget is None else replace(newest.results, gpu_budget=gpu_budget)
    groups = history(runs, max_slowdown)
    mine = [group for group in groups if newest in group.runs and len(group.runs) > 1]
    results = replace(results, notes=(*results.notes, *_left_out(groups, newest)))
    for path, content in _written(outputs, results, mine):
        write_whole(path, "report", content)
        show(f"wrote {path}")
    if outputs == Outputs():
        width = shutil.get_terminal_size((120, 40)).columns
        for line in (*summary(results, width), *(["", *history_lines(mine)] if mine else [])):
            show(line)


def run_claims(files: Sequence[Path], outputs: Outputs, show: Callable[[str], None]) -> None:
    """Show the results of several libraries side by side, and what holds of what users report; or write it.

    Raises:
        LoraperfError: a file is no results file, two cannot stand side by side, or the output cannot be written.
    """
    outputs.check(files)
    lines = list(side_by_side(read_libraries(files)))
    if outputs.markdown is None:
        for line in lines:
            show(line)
        return
    write_whole(outputs.markdown, "report", "\n".join(lines) + "\n")
    show(f"wrote {outputs.markdown}")


def _written(outputs: Outputs, results: Results, groups: Sequence[Group]) -> Iterator[tuple[Path, str | bytes]]:
    if outputs.html is not None:
        from pytest_loraperf.page.write import page  # noqa: PLC0415 - imports jinja2 and vl_convert

        yield outputs.html, page(results, groups)
    if outputs.markdown is not None:
        yield outputs.markdown, _markdown(results, groups)
    if outputs.png is not None:
        from pytest_loraperf.page.draw import png  # noqa: PLC0415 - imports vl_convert
        from pytest_loraperf.page.figures import picture  # noqa: PLC0415

        spec = picture(results)
        if spec is None:
            raise LoraperfError(
                f"--png={outputs.png}: the results hold nothing that can be drawn; measure a strategy"
            )
        yield outputs.png, png(spec)


def _markdown(results: Results, groups: Sequence[Group]) -> str:
    parts = [markdown_table(results)]
    parts += ["\n".join(markdown_rows([TITLES, *history_cells(group)])) for group in groups]
    return "\n\n".join(parts) + "\n"


def _left_out(groups: Sequence[Group], newest: Run) -> Iterator[str]:
    other = [run.name for group in groups if newest not in group.runs for run in group.runs]
    if other:
        yield f"not in the history, of another machine, model or request: {', '.join(other)}"


def run_history(files: Sequence[Path], as_json: bool, max_slowdown: float, show: Callable[[str], None]) -> None:
    """Show each strategy's time and VRAM over the results files, in the order of their making.

    Raises:
        LoraperfError: a file is no results file, or none has a strategy.
    """
    runs = read_runs(files)
    groups, notes = history(runs, max_slowdown), left_out(*(run.results for run in runs))
    if not any(group.strategies for group in groups):
        what = f"no strategy in {', '.join(map(str, files))}; measure one"
        raise LoraperfError("; ".join([what, *notes]))
    if not as_json:
        for line in (*history_lines(groups), *notes):
            show(line)
        return
    plain = [
        {
            "machine": group.machine,
            "model": group.model,
            "request": to_plain(group.request),
            "strategies": to_plain(group.strategies),
        }
        for group in groups
    ]
    show(json.dumps({"history": HISTORY, "groups": plain, "notes": notes}, indent=1, allow_nan=False))
