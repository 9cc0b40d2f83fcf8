"""The order guard: fails the test, or the run, in which a rule on the order of operations is broken.

Imported in every run: the rules, wrapt and the recorder wait until one of the libraries is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pytest_loraperf.order.runtime.watch import ImportWatch, is_watched

if TYPE_CHECKING:
    from pytest_loraperf.order.runtime.findings import Finding
    from pytest_loraperf.order.runtime.recorder import Recorder

SENT = "loraperf_order"


def start_guard(config: pytest.Config, mode: str, note: Callable[[str], None]) -> None:
    """Put the guard up, once, for as long as this run lasts; ``note`` takes lines for the summary."""
    if mode == "off" or config.stash.get(GUARD, None) is not None:
        return
    config.stash[GUARD] = guard = OrderGuard(mode, config.rootpath, note)
    config.pluginmanager.register(guard, "loraperf-order")
    config.add_cleanup(guard.close)
    guard.start()


class OrderGuard:
    """Watches, and holds what was found until the test ends that it belongs to. ``mode`` is error or warn."""

    def __init__(self, mode: str, root: Path, note: Callable[[str], None]) -> None:
        self.mode = mode
        self.root = root
        self.note = note
        self.recorder: Recorder | None = None
        self.item: pytest.Item | None = None
        self.of_test: dict[Finding, None] = {}
        self.of_run: dict[str, None] = {}
        self.troubles: dict[str, None] = {}
        self.watch = ImportWatch(self.loaded)

    def start(self) -> None:
        """Wait for the libraries; wrap those that are there."""
        self.watch.install()
        for name, module in list(sys.modules.items()):
            if is_watched(name) and isinstance(module, ModuleType):
                self.loaded(module, late=True)

    def close(self) -> None:
        """Put everything back."""
        self.watch.remove()
        if self.recorder is not None:
            self.recorder.close()

    def loaded(self, module: ModuleType, *, late: bool = False) -> None:
        """Wrap what a library's module defines."""
        if self.recorder is None:
            from pytest_loraperf.order.runtime.recorder import Recorder  # noqa: PLC0415 - start-up

            self.recorder = Recorder(str(self.root), self.found, self.trouble)
        self.recorder.loaded(module, late=late)

    def found(self, finding: Finding) -> None:
        """Take a finding; one outside of a test is the run's."""
        if self.item is not None:
            self.of_test[finding] = None
        elif not finding.raised:
            self._to_run([finding])

    def trouble(self, line: str) -> None:
        """Take what the recorder could not do."""
        self.troubles[f"warning: {line}"] = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Watch the set-up: what is found there fails the test at its end."""
        self.of_test.clear()
        with self._during(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Fail the test if a rule was broken in it, after all else that it has to say."""
        with self._during(item, "call"):
            result = yield
        self._fail(item)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run for what was found outside of a test; a worker sends it to the controller."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[SENT] = [list(self.of_run), list(self.troubles)]
            return
        word = "warning" if self.mode == "warn" else "error, outside of a test"
        for line in (*(f"{word}: {line}" for line in self.of_run), *self.troubles):
            self.note(line)
        fine = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self.of_run and self.mode == "error" and fine:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take what an xdist worker found; one that crashed sends nothing."""
        lines, troubles = (getattr(node, "workeroutput", None) or {}).get(SENT, ((), ()))
        self.of_run.update(dict.fromkeys(lines))
        self.troubles.update(dict.fromkeys(troubles))

    @contextmanager
    def _during(self, item: pytest.Item, when: str) -> Generator[None]:
        """Take what is found for the test's; where it fails for another reason, that is shown beside it."""
        self.item = item
        try:
            yield
        except pytest.skip.Exception:
            self._fail(item)  # a skip must not hide what was found
            raise
        except BaseException:
            shown = self._not_allowed(item)
            if shown:
                item.add_report_section(when, "loraperf order", _text(shown))
            raise
        finally:
            self.item = None

    def _fail(self, item: pytest.Item) -> None:
        done = [finding for finding in self._not_allowed(item) if not finding.raised]
        self.of_test.clear()
        if done and self.mode == "error":
            raise pytest.fail.Exception(_text(done), pytrace=False) from None
        self._to_run(done)

    def _not_allowed(self, item: pytest.Item) -> list[Finding]:
        if not self.of_test:
            return []
        from pytest_loraperf.specs import allow_order  # noqa: PLC0415 - only where something was found

        marks = item.iter_markers("allow_order")
        allowed = {allow_order(*mark.args, **mark.kwargs).code for mark in marks}
        return [finding for finding in self.of_test if finding.code not in allowed]

    def _to_run(self, findings: Iterable[Finding]) -> None:
        self.of_run.update(dict.fromkeys(" ".join(finding.lines) for finding in findings))


GUARD: pytest.StashKey[OrderGuard] = pytest.StashKey()


def _text(findings: Iterable[Finding]) -> str:
    return "\n".join(line for finding in findings for line in finding.lines)
