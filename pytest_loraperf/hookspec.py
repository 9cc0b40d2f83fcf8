"""Hooks that a downstream conftest or plugin may implement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_loraperf.strategies import Strategy


@pytest.hookspec
def pytest_loraperf_strategies(config: pytest.Config) -> Iterable[Strategy] | None:
    """Return strategies of your own; their names then work in markers, options and the table."""
