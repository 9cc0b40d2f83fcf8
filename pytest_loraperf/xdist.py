"""Under pytest-xdist: a worker sends what it measured with each report, the controller puts it together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.fixtures import SESSION

if TYPE_CHECKING:
    from pytest_loraperf.baseline.latents import Taken
    from pytest_loraperf.baseline.record import Measured
    from pytest_loraperf.report.results import Results

WIRE = 1
"""The version of what is sent: ``{"wire": 1, "results": …, "measured": {NODEID: MEASURED}, "partial": BOOL}``."""
ATTRIBUTE = "loraperf"
LATENTS = "loraperf_latents"
"""What a test generated, for a baseline: with the report of that test alone, since it may hold a file."""


REFUSED = "loraperf_refused"
"""Marks the report by which a worker says why no test can be run."""


def refuse(config: pytest.Config, items: list[pytest.Item], message: str) -> None:
    """Say from a worker that no test can be run: an error that it raised would be an internal one of xdist."""
    items.clear()
    report = pytest.CollectReport("loraperf", "failed", message, None)
    setattr(report, REFUSED, True)
    config.hook.pytest_collectreport(report=report)


class Worker:
    """Sends all that was measured so far with the report of each test that used us.

    So what a worker has measured is there when it crashes later.
    """

    def __init__(self) -> None:
        self._sent: object = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add it to the report of each phase that has more to tell."""
        report = yield
        run = item.config.stash[SESSION]
        state, before = (run.progress, tuple(run.notes)), self._sent
        self._sent = state
        if any(state) and state != before:
            setattr(report, ATTRIBUTE, _sent(item.config))
        if call.when == "call" and run.stored is not None and item.nodeid in run.stored.latents.taken:
            from pytest_loraperf.report.schema import to_plain  # noqa: PLC0415 - only where there is a baseline

            setattr(report, LATENTS, to_plain(run.stored.latents.taken[item.nodeid]))
        return report


class Controller:
    """Keeps the last that each worker sent; ``took`` is called after each, and ``count`` counts them from 1."""

    def __init__(self, took: Callable[[Controller], None]) -> None:
        self._took = took
        self.count: int | None = None
        self._sent: dict[str, Mapping[str, Any]] = {}
        self._lost: dict[str, str] = {}
        self._latents: dict[str, Any] = {}

    @pytest.hookimpl(tryfirst=True)  # an interrupt may come in any of the others
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a report brings, and note where it should have brought something."""
        worker = str(getattr(report, "worker_id", ""))
        if report.when == "setup":
            self._latents.pop(report.nodeid, None)  # an earlier run of the same test
        if (latents := getattr(report, LATENTS, None)) is not None:
            self._latents[report.nodeid] = latents
        sent = getattr(report, ATTRIBUTE, None)
        if isinstance(sent, dict) and sent.get("wire") == WIRE:
            self._sent[worker] = sent
            self.count = (self.count or 0) + 1
            self._took(self)
        elif report.when == "call" and any(
            str(name).startswith("loraperf_") for name, _ in report.user_properties
        ):
            what = "nothing" if sent is None else "what this version cannot read"
            self._lost[worker] = f"worker {worker} measured {report.nodeid} and sent {what}"

    @pytest.hookimpl(tryfirst=True)  # before the terminal shows it too
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """End the run as it would end without workers.

        Raises:
            pytest.UsageError: a worker cannot run the tests.
        """
        if getattr(report, REFUSED, False):
            raise pytest.UsageError(str(report.longrepr))

    def take_arrived(self, config: pytest.Config) -> None:
        """Take the reports that had arrived when the run was stopped, and that xdist hands to no one."""
        queue = getattr(config.pluginmanager.getplugin("dsession"), "queue", None)
        while isinstance(queue, Queue) and not queue.empty():
            event, details = queue.get_nowait()
            if event == "testreport":
                self.pytest_runtest_logreport(details["rep"])

    @property
    def used(self) -> bool:
        """Whether any worker measured anything."""
        return bool(self._sent)

    def lost(self) -> list[str]:
        """Return a line for each worker whose measurements are missing."""
        return [f"{each}; give all workers one version of this plugin, or try -n0" for each in self._lost.values()]

    def results(self, order: list[str]) -> Results:
        """Return the results of all workers as those of one run.

        Raises:
            LoraperfError: what a worker sent cannot be read.
        """
        from pytest_loraperf.report.merging import merge  # noqa: PLC0415 - only where there is something
        from pytest_loraperf.report.results import Results  # noqa: PLC0415

        return merge(
            [_read(Results, worker, sent["results"]) for worker, sent in sorted(self._sent.items())], order
        )

    def measured(self) -> dict[str, Measured]:
        """Return what each test measured, as a baseline stores it.

        Raises:
            LoraperfError: what a worker sent cannot be read.
        """
        from pytest_loraperf.baseline.record import Measured  # noqa: PLC0415 - only where there is a baseline
        from pytest_loraperf.report.schema import from_plain  # noqa: PLC0415

        return {
            nodeid: from_plain(Measured, found, f"{worker}: measured[{nodeid!r}]")
            for worker, sent in sorted(self._sent.items())
            for nodeid, found in sent["measured"].items()
        }

    def latents(self) -> dict[str, Taken]:
        """Return what each test generated, for a baseline.

        Raises:
            LoraperfError: what a worker sent cannot be read.
        """
        from pytest_loraperf.baseline.latents import Taken  # noqa: PLC0415 - only where there is a baseline
        from pytest_loraperf.report.schema import from_plain  # noqa: PLC0415

        return {
            nodeid: from_plain(Taken, found, f"latents[{nodeid!r}]") for nodeid, found in self._latents.items()
        }

    @property
    def partial(self) -> bool:
        """Whether tests were deselected in a worker."""
        return any(sent.get("partial") for sent in self._sent.values())


def _read(kind: type[Results], worker: str, data: object) -> Results:
    try:
        return kind.from_json(data)
    except LoraperfError as error:
        raise LoraperfError(f"worker {worker}: {error}") from error


def _sent(config: pytest.Config) -> dict[str, Any]:
    from pytest_loraperf.report.schema import to_plain  # noqa: PLC0415
    from pytest_loraperf.run.gathering import gather  # noqa: PLC0415 - imports torch

    run = config.stash[SESSION]
    measured = run.stored.measured if run.stored else {}
    return {
        "wire": WIRE,
        "results": gather(run).to_json(),
        "measured": to_plain(measured),
        "partial": run.stored is not None and run.stored.partial,
    }
