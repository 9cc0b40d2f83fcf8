"""What GitHub is shown beside the lines of tests: one annotation for each verdict that fails, and for warnings.

pytest's controller writes them, as the last lines of the run: what a test or a worker prints is captured, or
stands in the middle of a line of progress.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.report.table import one_line, shortened
from pytest_loraperf.workflow import LONGEST_MESSAGE, LONGEST_TITLE, SHOWN, command

OTHER_PLUGIN = "pytest_github_actions_annotate_failures"
_FAILED = re.compile(r"loraperf(?: (?P<code>[\w-]+))?: (?P<message>.+)")
_LINTED = re.compile(r"(?P<path>.+?):(?P<line>\d+):\d+: (?P<code>LRP\d+ \[[\w-]+\]) (?P<message>.+)")
_CANNOT_TELL = "INCONCLUSIVE: "
_LEVELS = {"error": "error", "warning": "warning", "validity": "warning"}
"""How loud a note of the summary is, by the word that it begins with."""


@dataclass(frozen=True)
class Annotation:
    """One message beside a line of a file, counted from 1, or beside none; ``level`` is error or warning."""

    level: str
    title: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        title = shortened(one_line(self.title), LONGEST_TITLE)
        lines = "\n".join(map(one_line, self.message.split("\n")))
        message = shortened(lines, LONGEST_MESSAGE)
        return command(self.level, message, file=self.file, line=self.line, title=title)


@dataclass(eq=False)  # pytest 8 keeps its plugins in a set
class Annotations:
    """The pytest plugin that collects them.

    ``notes`` returns the notes of the run, once it is over; ``told_by_other`` is set where another plugin
    annotates what fails a test.
    """

    root: Path
    started_in: Path
    workspace: str
    notes: Callable[[], Iterable[str]]
    told_by_other: bool = False
    found: list[Annotation] = field(default_factory=list)

    @classmethod
    def of(
        cls, config: pytest.Config, environ: Mapping[str, str], notes: Callable[[], Iterable[str]]
    ) -> Annotations:
        """Return the plugin of this run."""
        other = config.pluginmanager.hasplugin(OTHER_PLUGIN) and environ.get("GITHUB_ACTIONS") == "true"
        started_in = config.invocation_params.dir
        return cls(config.rootpath, started_in, environ.get("GITHUB_WORKSPACE", ""), notes, other)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what this plugin fails a test for, and what it lets pass with a warning."""
        file, line, _ = report.location
        place: dict[str, Any] = {
            "file": self._relative(self.root / file),
            "line": None if line is None else line + 1,
        }
        if report.failed and not self.told_by_other:
            self.found += self._failures(report, place)
        if report.passed and report.when == "call":
            for name, value in report.user_properties:
                if str(name).startswith("loraperf_") and str(value).startswith(_CANNOT_TELL):
                    title = f"{str(name).removeprefix('loraperf_')} {report.nodeid}"
                    message = str(value).removeprefix(_CANNOT_TELL)
                    self.found.append(Annotation("warning", title, message, **place))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Write them, after all else that pytest writes."""
        yield
        self.found += self._of_the_run()
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        for line in commands(self.found):
            if reporter is not None:
                reporter.write_line(line)
            else:
                sys.stdout.write(f"{line}\n")

    def _failures(self, report: pytest.TestReport, place: Mapping[str, Any]) -> list[Annotation]:
        """Return what this plugin says in the text of a failure: a line for each verdict, or for each finding."""
        found: list[Annotation] = []
        reads = report.nodeid.endswith("::loraperf-lint")
        for text in report.longreprtext.splitlines():
            if failed := _FAILED.fullmatch(text):
                title = f"{failed['code'] or 'loraperf'} {report.nodeid}"
                found.append(Annotation("error", title, failed["message"], **place))
            elif reads and (linted := _LINTED.fullmatch(text)):
                at = (self._relative(self.started_in / linted["path"]), int(linted["line"]))
                found.append(Annotation("error", linted["code"], linted["message"], *at))
            elif found and not reads and text.startswith("  "):  # the calls of a broken order
                found[-1] = replace(found[-1], message=f"{found[-1].message}\n{text.strip()}")
        return found

    def _of_the_run(self) -> Iterator[Annotation]:
        """Yield the notes that warn; what a test passed with is annotated there."""
        known = {each.message for each in self.found}
        for note in self.notes():
            word, _, message = note.partition(": ")
            level = _LEVELS.get(word.partition(",")[0])
            if level is not None and message not in known:
                yield Annotation(level, f"loraperf {word}", message)

    def _relative(self, path: Path) -> str:
        """Return the path as GitHub knows it: from the workspace, or from pytest's root if that is elsewhere."""
        path = Path(os.path.normpath(path))
        for folder in (self.workspace, self.root):
            if folder and path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return path.as_posix()


def commands(found: Iterable[Annotation]) -> Iterator[str]:
    """Yield a command for each; of each kind as many as GitHub shows, the last one saying how many more."""
    for level in ("error", "warning"):
        of_level = [each for each in found if each.level == level]
        fit = len(of_level) <= SHOWN
        yield from (str(each) for each in (of_level if fit else of_level[: SHOWN - 1]))
        if not fit:
            more = f"{len(of_level) - SHOWN + 1} more are in the log: GitHub shows {SHOWN} {level}s of a step"
            yield str(Annotation(level, "loraperf", more))
