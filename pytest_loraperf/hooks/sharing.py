"""Workers of pytest-xdist that share a GPU: a test waits until what it declares fits beside what runs there."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.fixtures import GATES, one_clear_line
from pytest_loraperf.hooks.gates import has_pipeline
from pytest_loraperf.session import Session
from pytest_loraperf.specs import Gates
from pytest_loraperf.units import format_duration

if TYPE_CHECKING:
    from pytest_loraperf.strategies import Strategies

OURS = frozenset({"gpu_workload", "lora_race"})
LONG_SECONDS = 10.0
"""Waiting that is told in the summary."""


def declared(
    gates: Gates, gpu_budget: int | None, fixtures: Sequence[str], strategies: Strategies, total: int
) -> int | None:
    """Return the bytes of the GPU that a test says it needs at most; None where it says nothing and uses none.

    That is the largest of its budgets. One that is compared with another strategy builds that too, of which its
    budgets say nothing, and one without a budget that uses the GPU may need all of it.
    """
    compared: Collection[str] = set(gates.references) & set(strategies)
    if compared:
        return total
    budgets = [budget.limit for budget in gates.vram] + ([gpu_budget] if gpu_budget else [])
    if budgets:
        return max(budgets)
    uses = bool(OURS & set(fixtures) or gates.needs or has_pipeline(fixtures, strategies))
    return total if uses else None


class Sharing:
    """Asks for admission before the set-up of each test, and lets others in after the last that uses the GPU.

    In between the entry of a test stands until the next one asks, since pipelines stay on the device for that.
    """

    def __init__(self, run: Session) -> None:
        self._run = run
        self._waits: list[float] = []
        self._line = ""

    # Not `tryfirst`: pytest's logging must see the set-up begin, or its teardown breaks where there is no room.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Wait for room before anything of the test touches the GPU."""
        if self._needs(item):
            with one_clear_line():
                self._enter(item)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Give the device back once no test of this worker is to use it next."""
        try:
            return (yield)
        finally:
            if self._needs(item) and (nextitem is None or not self._needs(nextitem)):
                self._leave()

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Let others in, wherever the run was stopped."""
        yield
        room = self._run.__dict__.get("admission")
        if room is not None:
            room.leave()

    def _needs(self, item: pytest.Item) -> bool:
        return self._declared(item, 1) is not None

    def _declared(self, item: pytest.Item, total: int) -> int | None:
        if item.get_closest_marker("loraperf_lint"):
            return None  # it only reads source
        fixtures: Sequence[str] = getattr(item, "fixturenames", ())
        gates = item.stash.get(GATES, None) or Gates()
        return declared(gates, self._run.settings.gpu_budget, fixtures, self._run.strategies, total)

    def _enter(self, item: pytest.Item) -> None:
        room = self._run.admission
        if room is None:
            return
        need = self._declared(item, room.total)
        seconds = room.enter(need or 0, self._run.kept, self._run.vacate)
        if seconds >= LONG_SECONDS:
            self._tell(seconds)

    def _tell(self, seconds: float) -> None:
        self._waits.append(seconds)
        self._run.notes.pop(self._line, None)
        count = "1 test" if len(self._waits) == 1 else f"{len(self._waits)} tests"
        worker, seconds = os.environ.get("PYTEST_XDIST_WORKER", "?"), sum(self._waits)
        self._line = (
            f"worker {worker}: {count} waited {format_duration(seconds)} in all for room on the GPU; "
            "declare smaller budgets (vram_budget, --gpu-budget), or use fewer workers"
        )
        self._run.notes[self._line] = None

    def _leave(self) -> None:
        # Looking the queue up would make it, and import torch.
        room = self._run.__dict__.get("admission")
        if room is None:
            return
        try:
            self._run.vacate()
        except LoraperfError as error:  # others measure for too long
            self._run.notes[f"warning: {error}"] = None
        finally:
            room.leave()
