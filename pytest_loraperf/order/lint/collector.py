"""``--loraperf-lint``: an item for each Python file that pytest finds, failing where there is a finding."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.formats import finding_lines
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.lint.source import read
from pytest_loraperf.order.rules import UNREADABLE

NAME = "loraperf-lint"
MARKER = "loraperf_lint"


@dataclass(frozen=True)
class LintCollector:
    """The plugin that collects; ``codes`` are those to report."""

    codes: Collection[str]

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> LintFile | None:
        """Take each Python file, a test module or not."""
        if file_path.suffix != ".py":
            return None
        nodeid = f"{os.path.relpath(file_path, parent.config.rootpath)}::{NAME}"
        return LintFile.from_parent(parent, path=file_path, nodeid=nodeid, codes=self.codes)


class LintAlone:
    """The plugin of a run of these items alone: what ``-m loraperf_lint`` leaves out anyway is not imported."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        """Drop what else would be collected from the file."""
        found = yield
        return [each for each in found if isinstance(each, LintFile)]


class LintFile(pytest.File):
    """One Python file, beside the module that pytest makes of it.

    Its node id is that of its item: the module has the file's, and ``--lf`` would take one for the other.
    """

    def __init__(self, *, codes: Collection[str], **given: Any) -> None:
        super().__init__(**given)
        self.codes = codes

    def collect(self) -> Iterator[LintItem]:
        """Yield the one item; the file is read when that runs."""
        yield LintItem.from_parent(self, name=NAME, nodeid=self.nodeid, codes=self.codes)


class LintItem(pytest.Item):
    """Lints its file. Files are named from the folder that pytest was started in, as ``loraperf lint`` does."""

    def __init__(self, *, codes: Collection[str], **given: Any) -> None:
        super().__init__(**given)
        self.codes = codes
        self.add_marker(MARKER)

    def runtest(self) -> None:
        """Fail with what is found."""
        name = self._shown()
        text = read(self.path)
        if isinstance(text, Finding):
            found, source = ([replace(text, path=name)] if UNREADABLE in self.codes else []), []
        else:
            found, source = lint_source(text, name, self.codes), text.splitlines()
        if found:
            pytest.fail("\n".join(line for each in found for line in finding_lines(each, source)), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the file, and the title of its findings, which have their lines."""
        return self.path, None, f"{NAME} {self._shown()}"

    def _shown(self) -> str:
        return os.path.relpath(self.path, self.config.invocation_params.dir)
