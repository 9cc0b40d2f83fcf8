"""The pytest hooks; each goes a few lines into the session."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_loraperf import fixtures, hookspec
from pytest_loraperf.errors import LoraperfError, clear_frames, out_of_memory, said
from pytest_loraperf.fixtures import FORECAST_MADE, GATES, RECORD, SESSION, one_clear_line
from pytest_loraperf.guard import start_guard
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.options import (
    Settings,
    add_options,
    check_files,
    early_gpus,
    early_order_mode,
    read_settings,
)
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.strategies import CONTROL, Strategies
from pytest_loraperf.workflow import is_on, no_command

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from pytest_loraperf.baseline.stored import Stored
    from pytest_loraperf.verdict import Verdict
    from pytest_loraperf.xdist import Controller

WORKERS: pytest.StashKey[Controller] = pytest.StashKey()
ANNOTATIONS = "loraperf-annotations"
SHARES_GPU = pytest.StashKey[bool]()
PHASES = {
    "collect": "it was not collected",
    "setup": "its set-up failed",
    "call": "it failed",
    "teardown": "its teardown failed",
}


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let downstream repos add strategies."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options and ini values."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Give a worker its GPU, and put the order guard up, before a conftest imports a library."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        _assign_gpu(early_config, os.environ["PYTEST_XDIST_WORKER"])
    start_guard(early_config, early_order_mode(early_config), _noter(early_config))


def _assign_gpu(config: pytest.Config, worker: str) -> None:
    try:
        gpus = early_gpus(config)
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: --loraperf-gpus: {error}") from error
    if gpus:
        from pytest_loraperf.gpu import assign, nvml  # noqa: PLC0415 - only where there are workers

        found = assign.assign_gpu(worker, gpus, os.environ, lambda: len(nvml.device_names()))
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        config.stash[SHARES_GPU] = assign.is_shared(worker, workers, found)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the settings once, and register markers and fixtures."""
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    try:
        settings = read_settings(config)
        if not is_worker(config):
            check_files(settings)
            settings = settings.with_absolute_files()
        given = config.hook.pytest_loraperf_strategies(config=config)
        strategies = Strategies(strategy for some in given for strategy in some or ())
        stored = _open_stored(settings)
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error
    command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    session = Session(settings, strategies, tell=_teller(config), command=command, stored=stored)
    config.stash[SESSION] = session
    if not is_worker(config):
        _open_journal(config, session)
    config.pluginmanager.register(fixtures, "loraperf-fixtures")
    if is_worker(config) or _has_workers(config):
        _start_xdist(config)
    start_guard(config, settings.order, _noter(config))  # where a conftest named this plugin
    if settings.lint:
        _start_lint(config, settings)
    if is_on(settings.github, os.environ) and not is_worker(config):
        _start_annotations(config)
    if settings.gpu_budget is not None and not settings.forecast and not is_worker(config):
        _resolve_device(session)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for a controller of pytest-xdist."""
    return hasattr(config, "workerinput")


def _has_workers(config: pytest.Config) -> bool:
    option = config.option
    return bool(getattr(option, "numprocesses", None) or getattr(option, "tx", None))


def _start_xdist(config: pytest.Config) -> None:
    from pytest_loraperf.xdist import Controller, Worker  # noqa: PLC0415 - only where tests are distributed

    if is_worker(config):
        config.pluginmanager.register(Worker(), "loraperf-worker")
        if config.stash.get(SHARES_GPU, False):
            from pytest_loraperf.sharing import Sharing  # noqa: PLC0415 - only where a GPU is shared

            config.pluginmanager.register(Sharing(config.stash[SESSION]), "loraperf-sharing")
    else:
        from pytest_loraperf.outcome import keep  # noqa: PLC0415

        run = config.stash[SESSION]
        config.stash[WORKERS] = workers = Controller(lambda workers: keep(run, workers))
        config.pluginmanager.register(workers, "loraperf-controller")


def _start_annotations(config: pytest.Config) -> None:
    from pytest_loraperf.annotations import Annotations  # noqa: PLC0415 - only on GitHub
    from pytest_loraperf.outcome import notes_of  # noqa: PLC0415

    def notes() -> tuple[str, ...]:
        return notes_of(config.stash[SESSION], config.stash.get(WORKERS, None))

    config.pluginmanager.register(Annotations.of(config, os.environ, notes), ANNOTATIONS)


def _open_journal(config: pytest.Config, session: Session) -> None:
    if session.settings.json is None or config.option.collectonly:
        return
    from pytest_loraperf.journal import open_journal  # noqa: PLC0415 - only where results are written

    try:
        session.journal = open_journal(session.settings.json, _noter(config))
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error


def _open_stored(settings: Settings) -> Stored | None:
    if settings.forecast and settings.update_baseline:
        raise LoraperfError("--loraperf-forecast: nothing is timed; leave out --loraperf-update-baseline")
    if settings.forecast or (settings.baseline is None and not settings.update_baseline):
        return None
    from pytest_loraperf.baseline.stored import open_stored  # noqa: PLC0415 - only where a baseline is asked for

    return open_stored(settings)


def _start_lint(config: pytest.Config, settings: Settings) -> None:
    from pytest_loraperf.order.lint.collector import MARKER, LintAlone, LintCollector  # noqa: PLC0415 - only where it is asked for
    from pytest_loraperf.order.lint.findings import selected  # noqa: PLC0415

    codes = selected(settings.lint_select, settings.lint_ignore)
    config.pluginmanager.register(LintCollector(codes), "loraperf-lint")
    if config.option.markexpr.strip() == MARKER:
        config.pluginmanager.register(LintAlone(), "loraperf-lint-alone")


def _only_reads(item: pytest.Item) -> bool:
    if not item.config.stash[SESSION].settings.lint:
        return False
    from pytest_loraperf.order.lint.collector import LintItem  # noqa: PLC0415 - only where it is asked for

    return isinstance(item, LintItem)


def _noter(config: pytest.Config) -> Callable[[str], None]:
    """Return what puts a line into the summary."""
    return lambda line: config.stash[SESSION].notes.update({line: None})


def _teller(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line of progress, over the last one; quiet where the output is no terminal."""

    def tell(line: str) -> None:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        if reporter is not None and reporter.isatty and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.rewrite(f"loraperf: {line}", erase=True)

    return tell


def _resolve_device(session: Session) -> None:
    # A budget needs the device anyway: a broken one is told before any test runs.
    try:
        session.device  # noqa: B018 - looking it up is what finds it broken
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error


def pytest_report_header(config: pytest.Config) -> str:
    """Say in one line what this run is held to."""
    from pytest_loraperf.report.header import header  # noqa: PLC0415 - only where a header is printed

    return header(config.stash[SESSION])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with ``lora_pipeline`` once for each strategy that its markers name."""
    marks = list(metafunc.definition.iter_markers("lora_strategy"))
    names = [name for mark in reversed(marks) for name in mark.args if isinstance(name, str)]
    if "lora_pipeline" in metafunc.fixturenames and names:
        strategies = metafunc.config.stash[SESSION].strategies
        every = [name for name in strategies if name != CONTROL]
        found = dict.fromkeys(each for name in names for each in (every if name == "all" else [name]))
        metafunc.parametrize("lora_pipeline", list(found), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check every marker of every test, and report all that is wrong at once."""
    marked = [item for item in items if any(mark.name in MARKERS for mark in item.iter_markers())]
    if not marked:
        return
    from pytest_loraperf.specs import MarkerReport, check_references, read_gates  # noqa: PLC0415 - only for ours

    report = MarkerReport()
    for item in marked:
        item.stash[GATES] = gates = read_gates(item, report)
        check_references(item, gates, config.stash[SESSION].strategies, report)
    if report.problems:
        raise pytest.UsageError(report.message())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Open the test's record, skip what the device cannot run, and watch the memory of its set-up."""
    session = item.config.stash[SESSION]
    gates = item.stash.get(GATES, None)
    _forget_last_run(item, session)
    item.stash[RECORD] = record = session.records[item.nodeid] = TestRecord(item.nodeid, gates, _only_reads(item))
    with one_clear_line():
        reason = session.why_not(gates, pipeline=_has_pipeline(item, session))
    if reason:
        pytest.skip(reason)
    with session.watch_phase(record, "setup"):
        return (yield)


def _has_pipeline(item: pytest.Item, session: Session) -> bool:
    if not session.settings.forecast:
        return False
    from pytest_loraperf.specs import has_pipeline  # noqa: PLC0415 - only in a forecast

    return has_pipeline(getattr(item, "fixturenames", ()), session.strategies)


def _forget_last_run(item: pytest.Item, session: Session) -> None:
    """Forget what an earlier run of the same test found, where a plugin runs it again."""
    item.user_properties[:] = [pair for pair in item.user_properties if not pair[0].startswith("loraperf_")]
    if session.stored is not None:
        session.stored.forget(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the memory of the call, then judge the test by its gates."""
    session, record = item.config.stash[SESSION], item.stash[RECORD]
    if session.settings.forecast:
        return (yield from _forecast_call(item, session, record))
    with session.watch_phase(record, "runtime"):
        result = yield
    if session.has_gates(record):
        from pytest_loraperf.judging import judge  # noqa: PLC0415 - only where there is a gate
        from pytest_loraperf.verdict import Status, Verdict  # noqa: PLC0415 - imports numpy

        with one_clear_line():
            try:
                for verdict in judge(session, record):
                    _note(item, record, verdict)
            except Exception as error:
                record.verdicts.append(Verdict(Status.FAIL, "error", said(error)))
                raise
            finally:
                _add_properties(item, record)
    _fail(item, record.verdicts)
    return result


def _forecast_call(item: pytest.Item, session: Session, record: TestRecord) -> Generator[None, Any, Any]:
    """Judge the forecast of a test's pipeline; the test ends, skipped, where it calls that."""
    from pytest_loraperf.forecast.judging import held, judge_forecast  # noqa: PLC0415 - only in a forecast

    result, ended = None, False
    try:
        result = yield
    except pytest.skip.Exception as skipped:
        if skipped.msg != FORECAST_MADE:
            raise
        ended = True
    with one_clear_line():
        if record.forecast is None and record.foresee is not None:
            record.foresee()
        for verdict in judge_forecast(session, record):
            _note(item, record, verdict)
    _fail(item, record.verdicts)
    if ended:
        raise pytest.skip.Exception(held(record), _use_item_location=True)
    return result


def _add_properties(item: pytest.Item, record: TestRecord) -> None:
    if record.verdicts:
        from pytest_loraperf.properties import properties  # noqa: PLC0415 - imports numpy
        from pytest_loraperf.report.table import one_line  # noqa: PLC0415 - start-up

        run = item.config.stash[SESSION]
        item.user_properties.extend(
            (f"loraperf_{name}", one_line(value)) for name, value in properties(run, record)
        )


def _note(item: pytest.Item, record: TestRecord, verdict: Verdict) -> None:
    from pytest_loraperf.report.table import one_line, printable  # noqa: PLC0415 - start-up

    record.verdicts.append(verdict)
    item.user_properties.append((f"loraperf_{verdict.code}", f"{verdict.status}: {one_line(verdict.message)}"))
    if verdict.status != "PASS" and verdict.detail:
        detail = (no_command(printable(line)) for line in verdict.detail)
        item.add_report_section("call", f"loraperf {verdict.code}", "\n".join(detail))


def _fail(item: pytest.Item, verdicts: list[Verdict]) -> None:
    session = item.config.stash[SESSION]
    wrong = [verdict for verdict in verdicts if session.fails(verdict)]
    if wrong:
        from pytest_loraperf.report.table import one_line  # noqa: PLC0415 - start-up

        pytest.fail("\n".join(f"loraperf {each.code}: {one_line(each.message)}" for each in wrong), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what failed outside the gates, let go of what filled the memory, and keep what was measured."""
    report = yield
    run, error = item.config.stash[SESSION], call.excinfo.value if call.excinfo else None
    if error is not None and report.failed:
        _fell_over(item, error, PHASES[call.when])
    if out_of_memory(error) is not None and not item.config.option.usepdb:
        clear_frames(error)  # pytest keeps the last error, and its frames hold what filled the memory
    if run.journal is not None:
        from pytest_loraperf.outcome import keep  # noqa: PLC0415 - only where results are written

        keep(run, None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test that was interrupted pass in the results."""
    try:
        return (yield)
    except (KeyboardInterrupt, pytest.exit.Exception) as error:
        _fell_over(item, error, "it was interrupted")
        raise


def _fell_over(item: pytest.Item, error: BaseException, what: str) -> None:
    """Give a test with a gate the verdict of what ended it, unless one of its gates failed."""
    session, record = item.config.stash[SESSION], item.stash.get(RECORD, None)
    if record is None or not session.has_gates(record) or any(map(session.fails, record.verdicts)):
        return
    from pytest_loraperf.verdict import Status, Verdict  # noqa: PLC0415 - only where a test fell over

    ours = isinstance(error, pytest.fail.Exception)
    reason = str(error).partition("\n")[0].removeprefix("loraperf: ") if ours else said(error)
    record.verdicts.append(Verdict(Status.FAIL, "error", f"{what}: {reason}"))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Note that this run is of some of the tests."""
    for item in items[:1]:
        stored = item.config.stash[SESSION].stored
        if stored is not None:
            stored.partial = True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the results, whatever became of the tests, and give the device back."""
    config, run = session.config, session.config.stash[SESSION]
    workers = config.stash.get(WORKERS, None)
    github = config.pluginmanager.hasplugin(ANNOTATIONS)
    if (run.settings.files or github or run.stored or workers) and not (
        is_worker(config) or config.option.collectonly
    ):
        from pytest_loraperf.outcome import finish, interrupted  # noqa: PLC0415 - only where there is something to write

        try:
            if workers is not None:
                workers.take_arrived(config)
            for problem in finish(run, workers, github=github, whole=_is_whole(session, exitstatus)):
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
                run.notes[f"error: {problem}"] = None
        except KeyboardInterrupt:
            session.exitstatus = pytest.ExitCode.INTERRUPTED
            run.notes[f"error: {interrupted(run)}"] = None
    run.close()


def _is_whole(session: pytest.Session, exitstatus: int) -> bool:
    """Whether every test was asked for and had its turn; what is deselected is told elsewhere."""
    option = session.config.option
    some = any("::" in argument or argument.endswith(".py") for argument in session.config.args)
    some = some or any((option.keyword, option.markexpr, option.deselect, option.collectonly))
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    return ended and not (some or session.shouldstop or session.shouldfail)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Print the strategy table."""
    run, workers = config.stash[SESSION], config.stash.get(WORKERS, None)
    if not (run.benches or run.measured or run.forecasts or run.notes or (workers and workers.used)):
        return
    from pytest_loraperf.outcome import summary_lines  # noqa: PLC0415 - only where there is something

    lines = summary_lines(run, workers, terminalreporter._tw.fullwidth)  # noqa: SLF001 - pytest offers no other way to the width
    if lines:
        terminalreporter.section("loraperf")
        for line in (*lines, *(run.stored.diff if run.stored else ())):
            terminalreporter.line(no_command(line))
