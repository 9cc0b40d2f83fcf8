"""The pytest hooks; each goes a few lines into the session."""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_loraperf import fixtures, hookspec
from pytest_loraperf.errors import LoraperfError, clear_frames, out_of_memory, said
from pytest_loraperf.fixtures import GATES, RECORD, SESSION, one_clear_line
from pytest_loraperf.hooks.guard import start_guard
from pytest_loraperf.hooks.item import (
    STAGES,
    add_properties,
    fail,
    fell_over,
    forecast_call,
    forget_last_run,
    note,
    only_reads,
    out_of_card,
    uses_pipeline,
)
from pytest_loraperf.hooks.settings import add_options, early_order_mode, read_settings
from pytest_loraperf.hooks.starting import (
    ANNOTATIONS,
    LEAKS,
    WORKERS,
    assign_gpu,
    check_forecast,
    has_workers,
    is_worker,
    leave_out_traces,
    noter,
    open_baseline,
    resolve_device,
    start_annotations,
    start_cap,
    start_journal,
    start_leak_watch,
    start_lint,
    start_xdist,
    teller,
    unjudged,
)
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.strategies import ALL, CONTROL, Strategies
from pytest_loraperf.workflow import is_on, no_command
from pytest_loraperf.writable import check_files

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


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
        assign_gpu(early_config, os.environ["PYTEST_XDIST_WORKER"])
    start_guard(early_config, early_order_mode(early_config), noter(early_config))


def _strategies(config: pytest.Config) -> Strategies:
    """Return the strategies that ship and those of the user.

    Raises:
        LoraperfError: a hook returned none, or raised.
    """
    try:
        given = config.hook.pytest_loraperf_strategies(config=config)
    except (LoraperfError, pytest.UsageError):
        raise
    except Exception as error:
        raise LoraperfError(f"pytest_loraperf_strategies raised {said(error)}; mend the conftest") from error
    return Strategies.gathered(given)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the settings once, and register markers and fixtures."""
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    try:
        settings = read_settings(config)
        if not is_worker(config):
            check_files(settings)
            settings = settings.with_absolute_files()
        strategies = _strategies(config)
        check_forecast(settings)
        stored = open_baseline(settings)
    except LoraperfError as error:
        raise pytest.UsageError(f"loraperf: {error}") from error
    command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    session = Session(settings, strategies, tell=teller(config), command=command, stored=stored)
    config.stash[SESSION] = session
    session.notes.update(dict.fromkeys(unjudged(settings)))
    if not is_worker(config):
        start_journal(config, session)
    config.pluginmanager.register(fixtures, "loraperf-fixtures")
    if is_worker(config) or has_workers(config):
        start_xdist(config)
    start_guard(config, settings.order, noter(config))  # where a conftest named this plugin
    if settings.lint:
        start_lint(config, settings)
    if is_on(settings.github, os.environ) and not is_worker(config):
        start_annotations(config)
    if settings.gpu_budget is not None and not settings.forecast and not is_worker(config):
        resolve_device(session)
    start_cap(config, session)
    if settings.gpu_budget is not None or settings.leak_limit is not None:
        start_leak_watch(config, session)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Leave torch's traces out of what pytest captures, whose own plugin is there by now."""
    leave_out_traces(session.config)


def pytest_report_header(config: pytest.Config) -> str:
    """Say in one line what this run is held to."""
    from pytest_loraperf.hooks.header import header  # noqa: PLC0415 - only where a header is printed

    return header(config.stash[SESSION])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with ``lora_pipeline`` once for each strategy that its markers name."""
    marks = list(metafunc.definition.iter_markers("lora_strategy"))
    names = [name for mark in reversed(marks) for name in mark.args if isinstance(name, str)]
    if "lora_pipeline" in metafunc.fixturenames and names:
        strategies = metafunc.config.stash[SESSION].strategies
        every = [name for name in strategies if name != CONTROL]
        found = dict.fromkeys(each for name in names for each in (every if name == ALL else [name]))
        metafunc.parametrize("lora_pipeline", list(found), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check every marker of every test, and report all that is wrong at once."""
    marked = [item for item in items if any(mark.name in MARKERS for mark in item.iter_markers())]
    if not marked:
        return
    from pytest_loraperf.hooks.gates import MarkerReport, check_references, read_gates  # noqa: PLC0415 - only for ours

    report = MarkerReport()
    for item in marked:
        item.stash[GATES] = gates = read_gates(item, report)
        check_references(item, gates, config.stash[SESSION].strategies, report)
        if gates.leak is not None:
            start_leak_watch(config, config.stash[SESSION])
    if not report.problems:
        return
    if not is_worker(config):
        raise pytest.UsageError(report.message())
    from pytest_loraperf.xdist import refuse  # noqa: PLC0415 - only where tests are distributed

    refuse(config, items, report.message())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Open the test's record, skip what the device cannot run, and watch the memory of its set-up."""
    session = item.config.stash[SESSION]
    gates = item.stash.get(GATES, None)
    forget_last_run(item, session)
    item.stash[RECORD] = record = session.records[item.nodeid] = TestRecord(item.nodeid, gates, only_reads(item))
    with one_clear_line():
        reason = session.why_not(gates, pipeline=uses_pipeline(item, session))
    if reason:
        raise pytest.skip.Exception(reason, _use_item_location=True)
    session.start_test_on_card()
    with session.watch_phase(record, "setup"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the memory of the call, then judge the test by its gates."""
    session, record = item.config.stash[SESSION], item.stash[RECORD]
    if session.settings.forecast:
        return (yield from forecast_call(item, session, record))
    with session.watch_phase(record, "runtime"):
        result = yield
    if session.has_gates(record):
        from pytest_loraperf.run.judging import judge  # noqa: PLC0415 - only where there is a gate
        from pytest_loraperf.verdict import Status, Verdict  # noqa: PLC0415 - imports numpy

        try:
            for verdict in judge(session, record):
                note(item, record, verdict)
        except LoraperfError as error:  # told below the gates that were not held
            record.verdicts.append(Verdict(Status.FAIL, "error", str(error)))
        except Exception as error:
            record.verdicts.append(Verdict(Status.FAIL, "error", said(error)))
            raise
        finally:
            add_properties(item, record)
    fail(item, record.verdicts)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Let go of what the test gave to be measured."""
    try:
        return (yield)
    finally:
        record = item.stash.get(RECORD, None)
        if record is not None:  # another plugin may have ended the test before its set-up reached ours
            record.let_go()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what failed outside the gates, let go of what filled the memory, and keep what was measured."""
    report = yield
    run, error = item.config.stash[SESSION], call.excinfo.value if call.excinfo else None
    if error is not None and report.failed:
        if run.cap is not None and out_of_memory(error) is not None:
            out_of_card(item, report, run.cap, error)
        fell_over(item, error, STAGES[call.when])
    watched = item.config.pluginmanager.hasplugin(LEAKS) and report.failed
    if (watched or out_of_memory(error) is not None) and not item.config.option.usepdb:
        clear_frames(error)  # pytest keeps the last error, and its frames hold what fills the memory
    if run.journal is not None:
        from pytest_loraperf.hooks.outcome import keep  # noqa: PLC0415 - only where results are written

        keep(run, None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test that was interrupted pass in the results."""
    try:
        return (yield)
    except (KeyboardInterrupt, pytest.exit.Exception) as error:
        fell_over(item, error, "it was interrupted")
        raise


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
        from pytest_loraperf.hooks.outcome import finish, interrupted  # noqa: PLC0415 - only where there is something to write

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
    from pytest_loraperf.hooks.outcome import summary_lines  # noqa: PLC0415 - only where there is something

    lines = summary_lines(run, workers, terminalreporter._tw.fullwidth)  # noqa: SLF001 - pytest offers no other way to the width
    if lines:
        terminalreporter.section("loraperf")
        for line in (*lines, *(run.stored.diff if run.stored else ())):
            terminalreporter.line(no_command(line))
