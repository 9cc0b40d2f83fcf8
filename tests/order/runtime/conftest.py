from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_loraperf.hooks.guard import OrderGuard

Codes = Callable[[], list[str]]


@pytest.fixture
def guard() -> Iterator[OrderGuard]:
    """A guard outside of any test's hooks: all that it finds is the run's."""
    found = OrderGuard("error", Path(__file__).parent, note=print)
    found.start()
    yield found
    found.close()
    assert found.troubles == {}


@pytest.fixture
def codes(guard: OrderGuard) -> Codes:
    """The codes of what was found since the last look."""

    def look() -> list[str]:
        found = [line.split()[1].rstrip(":") for line in guard.of_run]
        guard.of_run.clear()
        return found

    return look
