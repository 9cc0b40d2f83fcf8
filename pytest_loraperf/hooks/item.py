"""One test as pytest has it: what is noted on its report, and what its verdicts make of it."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_loraperf.errors import out_of_memory, said
from pytest_loraperf.fixtures import FORECAST_MADE, RECORD, SESSION, one_clear_line
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.workflow import no_command

if TYPE_CHECKING:
    from pytest_loraperf.gpu.cap import Cap
    from pytest_loraperf.verdict import Verdict

STAGES = {
    "collect": "it was not collected",
    "setup": "its set-up failed",
    "call": "it failed",
    "teardown": "its teardown failed",
}


def only_reads(item: pytest.Item) -> bool:
    """Whether a test is of the linter, which reads source files alone."""
    if not item.config.stash[SESSION].settings.lint:
        return False
    from pytest_loraperf.order.lint.collector import LintItem  # noqa: PLC0415 - only where it is asked for

    return isinstance(item, LintItem)


def uses_pipeline(item: pytest.Item, session: Session) -> bool:
    """Whether a test of a forecast uses the pipeline of a strategy."""
    if not session.settings.forecast:
        return False
    from pytest_loraperf.hooks.gates import has_pipeline  # noqa: PLC0415 - only in a forecast

    return has_pipeline(getattr(item, "fixturenames", ()), session.strategies)


def forget_last_run(item: pytest.Item, session: Session) -> None:
    """Forget what an earlier run of the same test found, where a plugin runs it again."""
    item.user_properties[:] = [pair for pair in item.user_properties if not pair[0].startswith("loraperf_")]
    if session.stored is not None:
        session.stored.forget(item.nodeid)


def forecast_call(item: pytest.Item, session: Session, record: TestRecord) -> Generator[None, Any, Any]:
    """Judge the forecast of a test's pipeline; the test ends, skipped, where it calls that."""
    from pytest_loraperf.run.forecast_judging import held, judge_forecast  # noqa: PLC0415 - only in a forecast

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
            note(item, record, verdict)
    fail(item, record.verdicts)
    if ended:
        raise pytest.skip.Exception(held(record), _use_item_location=True)
    return result


def add_properties(item: pytest.Item, record: TestRecord) -> None:
    """Add what was measured to the test's properties, which JUnit shows."""
    if record.verdicts:
        from pytest_loraperf.hooks.properties import properties  # noqa: PLC0415 - imports numpy
        from pytest_loraperf.report.table import one_line  # noqa: PLC0415 - start-up

        run = item.config.stash[SESSION]
        item.user_properties.extend(
            (f"loraperf_{name}", one_line(value)) for name, value in properties(run, record)
        )


def note(item: pytest.Item, record: TestRecord, verdict: Verdict) -> None:
    """Note a verdict on the record and the report of its test."""
    from pytest_loraperf.report.table import one_line, printable  # noqa: PLC0415 - start-up

    record.verdicts.append(verdict)
    item.user_properties.append((f"loraperf_{verdict.code}", f"{verdict.status}: {one_line(verdict.message)}"))
    if verdict.status != "PASS" and verdict.detail:
        detail = (no_command(printable(line)) for line in verdict.detail)
        item.add_report_section("call", f"loraperf {verdict.code}", "\n".join(detail))


def fail(item: pytest.Item, verdicts: list[Verdict]) -> None:
    """Fail the test where a verdict says so, in a line for each."""
    session = item.config.stash[SESSION]
    wrong = [verdict for verdict in verdicts if session.fails(verdict)]
    if wrong:
        from pytest_loraperf.report.table import one_line  # noqa: PLC0415 - start-up

        lines = (f"loraperf{_of(each)}: {one_line(each.message)}" for each in wrong)
        pytest.fail("\n".join(lines), pytrace=False)


def _of(verdict: Verdict) -> str:
    return "" if verdict.code == "error" else f" {verdict.code}"


def fell_over(item: pytest.Item, error: BaseException, what: str) -> None:
    """Give a test with a gate the verdict of what ended it, unless one of its gates failed."""
    session, record = item.config.stash[SESSION], item.stash.get(RECORD, None)
    if record is None or not session.has_gates(record) or any(map(session.fails, record.verdicts)):
        return
    from pytest_loraperf.verdict import Status, Verdict  # noqa: PLC0415 - only where a test fell over

    ours = isinstance(error, pytest.fail.Exception)
    reason = str(error).partition("\n")[0].removeprefix("loraperf: ") if ours else said(error)
    record.verdicts.append(Verdict(Status.FAIL, "error", f"{what}: {reason}"))


def out_of_card(item: pytest.Item, report: pytest.TestReport, cap: Cap, error: BaseException) -> None:
    """Say in one line that a test ran out of the small card, where, and what held it."""
    from pytest_loraperf.verdict.gates import judge_card_full  # noqa: PLC0415 - only where a test fell over

    frame = traceback.extract_tb(error.__traceback__)
    place = next((each for each in reversed(frame) if Path(each.filename) == item.path), frame[-1])
    where = f"{Path(place.filename).name}:{place.lineno}"
    verdict = judge_card_full(report.when, where, str(out_of_memory(error)), cap.size, cap.parts())
    record = item.stash[RECORD]
    record.verdicts.append(verdict)
    report.longrepr = f"loraperf {verdict.code}: {verdict.message}"
    report.sections.append((f"loraperf {verdict.code}", "\n".join(verdict.detail)))
