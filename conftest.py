"""The root conftest: the tests run pytest in pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that a default run leaves out the tests of DiffSynth 1.1."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    return "tests/diffsynth1: left out, DiffSynth 1.1 needs an environment of its own: make test-diffsynth1"


@pytest.fixture(scope="session", autouse=True)
def as_anywhere() -> Iterator[None]:
    """Let tests see neither the GitHub job they run in, where runs in runs would write, nor a terminal's width.

    In a worker of pytest-xdist ``COLUMNS`` is 80, whatever the terminal.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "COLUMNS"):
            patch.delenv(name, raising=False)
        yield
