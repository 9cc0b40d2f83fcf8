"""What tests leave behind, as pytest has it: registered where a budget or a limit asks for it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_loraperf.fixtures import GATES, RECORD
from pytest_loraperf.hooks.gates import builds_pipelines
from pytest_loraperf.hooks.item import fail, note
from pytest_loraperf.session import Session

if TYPE_CHECKING:
    from pytest_loraperf.measure.leaks import Leak

WORTH_TELLING = 2**20
"""Bytes; what libraries keep for later is smaller."""


class Leaking:
    """Looks at live tensors before the set-up of each test and after its teardown.

    Tests that use a strategy's pipeline are left out: those stay built for later tests.
    """

    def __init__(self, run: Session) -> None:
        self._run = run
        self._inner: list[int] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Look before anything of the test is built."""
        if self._watches(item):
            self._run.leaks.begin(closely=self._limit(item) is not None)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Look once all that belongs to the test is gone, and hold what stays to the limit."""
        yield
        record = item.stash.get(RECORD, None)
        if record is None or not self._watches(item):
            return
        getattr(item, "funcargs", {}).clear()  # pytest lets go of them a moment later
        leak = self._run.leaks.end(item.nodeid)
        limit = self._limit(item)
        if limit is None:
            self._tell(item, leak)
            return
        from pytest_loraperf.verdict.gates import judge_leak  # noqa: PLC0415 - only where there is a limit

        note(item, record, judge_leak(leak.size, limit, self._run.ledger.meter.kind, leak.holders))
        fail(item, record.verdicts[-1:])

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        """Note what a fixture holds that lives on after the test that asks for it first."""
        if fixturedef.scope == "function":
            return (yield)
        leaks = self._run.leaks
        before = leaks.level()
        self._inner.append(0)
        try:
            return (yield)
        finally:  # one that fails is kept too: pytest raises its error again for each test that asks for it
            grown = leaks.level() - before
            leaks.held_by_fixture(fixturedef, grown - self._inner.pop())
            if self._inner:
                self._inner[-1] += grown  # fixtures that this one asked for are noted themselves

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """Forget a fixture that is finished."""
        self._run.leaks.let_go(fixturedef)

    def _watches(self, item: pytest.Item) -> bool:
        # Pipelines of ours stay built between tests, and what they hold has its own accounts.
        if builds_pipelines(getattr(item, "fixturenames", ()), self._run.strategies):
            return False
        return self._run.settings.gpu_budget is not None or self._limit(item) is not None

    def _limit(self, item: pytest.Item) -> int | None:
        gates = item.stash.get(GATES, None)
        return gates.leak.limit if gates and gates.leak else self._run.settings.leak_limit

    def _tell(self, item: pytest.Item, leak: Leak) -> None:
        if leak.size >= WORTH_TELLING:
            from pytest_loraperf.verdict.gates import left_behind  # noqa: PLC0415 - only where something is

            line = left_behind(item.nodeid, leak.size, self._run.ledger.meter.kind)
            self._run.notes[f"warning: {line}"] = None
