"""What a run is put together of when pytest starts: a worker's GPU, files, and the plugins that it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.fixtures import SESSION
from pytest_loraperf.hooks.settings import early_gpus
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

if TYPE_CHECKING:
    from pytest_loraperf.baseline.stored import Stored
    from pytest_loraperf.xdist import Controller

WORKERS: pytest.StashKey[Controller] = pytest.StashKey()
ANNOTATIONS = "loraperf-annotations"
LEAKS = "loraperf-leaks"
TRACES = "torch.__trace"
SHARES_GPU = pytest.StashKey[bool]()


def assign_gpu(config: pytest.Config, worker: str) -> None:
    """Let this worker see its GPU alone, where that is asked for."""
    try:
        gpus = early_gpus(config)
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: --loraperf-gpus: {error}") from error
    if gpus:
        from pytest_loraperf.gpu import assign, nvml  # noqa: PLC0415 - only where there are workers

        found = assign.assign_gpu(worker, gpus, os.environ, lambda: len(nvml.device_names()))
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        config.stash[SHARES_GPU] = assign.is_shared(worker, workers, found)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for a controller of pytest-xdist."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this process gives its tests to workers of pytest-xdist."""
    option = config.option
    return bool(getattr(option, "numprocesses", None) or getattr(option, "tx", None))


def start_xdist(config: pytest.Config) -> None:
    """Send what a worker measures, or take what workers send."""
    from pytest_loraperf.xdist import Controller, Worker  # noqa: PLC0415 - only where tests are distributed

    if is_worker(config):
        config.pluginmanager.register(Worker(), "loraperf-worker")
        if config.stash.get(SHARES_GPU, False):
            from pytest_loraperf.hooks.sharing import Sharing  # noqa: PLC0415 - only where a GPU is shared

            config.pluginmanager.register(Sharing(config.stash[SESSION]), "loraperf-sharing")
    else:
        from pytest_loraperf.hooks.outcome import keep  # noqa: PLC0415

        run = config.stash[SESSION]
        config.stash[WORKERS] = workers = Controller(lambda workers: keep(run, workers))
        config.pluginmanager.register(workers, "loraperf-controller")


def start_annotations(config: pytest.Config) -> None:
    """Write annotations for GitHub at the end."""
    from pytest_loraperf.hooks.annotations import Annotations  # noqa: PLC0415 - only on GitHub
    from pytest_loraperf.hooks.outcome import notes_of  # noqa: PLC0415

    def notes() -> tuple[str, ...]:
        return notes_of(config.stash[SESSION], config.stash.get(WORKERS, None))

    config.pluginmanager.register(Annotations.of(config, os.environ, notes), ANNOTATIONS)


def start_journal(config: pytest.Config, session: Session) -> None:
    """Keep what was measured beside the results file until that is written."""
    if session.settings.json is None or config.option.collectonly:
        return
    from pytest_loraperf.run.journal import open_journal  # noqa: PLC0415 - only where results are written

    try:
        session.journal = open_journal(session.settings.json, noter(config))
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error


def check_forecast(settings: Settings) -> None:
    """Refuse what needs times where nothing is run.

    Raises:
        LoraperfError: a forecast is asked for together with such an option.
    """
    timed = {"--loraperf-update-baseline": settings.update_baseline, "--loraperf-limits": settings.limits}
    for flag, given in timed.items():
        if settings.forecast and given:
            raise LoraperfError(f"--loraperf-forecast: nothing is timed; leave out {flag}")


def unjudged(settings: Settings) -> Iterator[str]:
    """Yield what a run is held to that a forecast cannot judge, for the summary."""
    if not settings.forecast:
        return
    from pytest_loraperf.run.forecast_judging import NOT_JUDGED  # noqa: PLC0415 - only in a forecast

    held = {"--gpu-leak-limit": settings.leak_limit, "--loraperf-baseline": settings.baseline}
    for flag, given in held.items():
        if given is not None:
            yield f"forecast: {flag} is {NOT_JUDGED}"


def open_baseline(settings: Settings) -> Stored | None:
    """Read the baseline that is asked for.

    Raises:
        LoraperfError: it cannot be used.
    """
    if settings.forecast or (settings.baseline is None and not settings.update_baseline):
        return None
    from pytest_loraperf.baseline.stored import open_stored  # noqa: PLC0415 - only where a baseline is asked for

    return open_stored(settings)


def start_lint(config: pytest.Config, settings: Settings) -> None:
    """Collect source files and lint them."""
    from pytest_loraperf.order.lint.collector import MARKER, LintAlone, LintCollector  # noqa: PLC0415 - only where it is asked for
    from pytest_loraperf.order.lint.findings import selected  # noqa: PLC0415

    codes = selected(settings.lint_select, settings.lint_ignore)
    config.pluginmanager.register(LintCollector(codes), "loraperf-lint")
    if config.option.markexpr.strip() == MARKER:
        config.pluginmanager.register(LintAlone(), "loraperf-lint-alone")


def noter(config: pytest.Config) -> Callable[[str], None]:
    """Return what puts a line into the summary."""
    return lambda line: config.stash[SESSION].notes.update({line: None})


def teller(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line of progress, over the last one; quiet where the output is no terminal."""

    def tell(line: str) -> None:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        if reporter is not None and reporter.isatty and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.rewrite(f"loraperf: {line}", erase=True)

    return tell


def resolve_device(session: Session) -> None:
    """Look the device up now: a budget needs it anyway, and a broken one is told before any test runs."""
    try:
        session.device  # noqa: B018 - looking it up is what finds it broken
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error


def start_cap(config: pytest.Config, session: Session) -> None:
    """Make the GPU as small as the budget, in each process that runs tests."""
    if session.settings.gpu_budget_mode != "cap":
        return
    try:
        if has_workers(config) and not is_worker(config):
            session.check_card()
        else:
            session.play_card()
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error


def start_leak_watch(config: pytest.Config, session: Session) -> None:
    """Watch what tests leave behind."""
    if config.pluginmanager.hasplugin(LEAKS) or session.settings.forecast:
        return
    from pytest_loraperf.hooks.leaking import Leaking  # noqa: PLC0415 - only where it is asked for

    config.pluginmanager.register(Leaking(session), LEAKS)


def leave_out_traces(config: pytest.Config) -> None:
    """Keep what torch logs for ``TORCH_TRACE`` out of what pytest shows of a failing test.

    Since 9.2 pytest captures loggers that do not propagate, too: each of hundreds of events of a compilation would
    be an empty line. The logger itself is left alone, since torch reads from it.
    """
    logging_plugin = config.pluginmanager.get_plugin("logging-plugin")
    for name in ("caplog_handler", "report_handler"):
        handler = getattr(logging_plugin, name, None)
        if handler is not None:
            handler.addFilter(lambda record: record.name != TRACES)
