"""The pages of what pytest sees: markers, options, fixtures, hooks, verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from docs.generate.markdown import fenced, page, prose, signature, table
from pytest_loraperf import fixtures, hookspec
from pytest_loraperf.commands import arguments
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.options import OPTIONS, Option, Settings
from pytest_loraperf.report.results import VerdictRecord
from pytest_loraperf.specs import READERS
from pytest_loraperf.strategies import NO_LORA, SHIPPED
from pytest_loraperf.verdict.codes import MEANINGS
from pytest_loraperf.verdict.types import Status

OF_COMMANDS = {
    "bench": arguments.BENCH_OPTIONS,
    "calibrate": arguments.CALIBRATE_OPTIONS,
    "effect": arguments.EFFECT_OPTIONS,
    "forecast": arguments.FORECAST_OPTIONS,
}


def markers() -> str:
    """Return the page of the markers."""
    return page(
        "Markers",
        "pytest_loraperf/markers.py or specs.py",
        "`pytest --markers` shows them too. They are checked when tests are collected: wrong arguments and "
        "unknown strategies are one usage error that lists the tests. A size is a number and a unit (`14GB`; GB "
        "is 2³⁰ bytes, as GiB is), a duration too (`1.5s`, `300ms`), a percentage a number and `%`.",
        *(part for name, usage in MARKERS.items() for part in _marker(name, usage)),
    )


def _marker(name: str, usage: str) -> Iterator[str]:
    call, _, meaning = usage.partition(": ")
    yield f"## `{name}`"
    yield fenced(f"@pytest.mark.{call}")
    yield meaning[0].upper() + meaning[1:]
    spec = get_type_hints(READERS[name])["return"] if name in READERS else None
    if is_dataclass(spec) and "\n\n" in (details := prose(spec)):
        yield details


def options() -> str:
    """Return the page of the options."""
    return page(
        "Options",
        "pytest_loraperf/options.py",
        "Each works on the command line of pytest and in its ini, under the name that stands with it; the command "
        "line goes first. A file that is named in the ini is relative to the ini's folder. In the ini a switch is "
        "`true` or `false`, and what can be given several times is a value a line.",
        *(part for option in OPTIONS for part in _option(option)),
    )


def _option(option: Option) -> Iterator[str]:
    yield f"## `{option.flag}`"
    yield fenced(f"{option.flag} {option.metavar}".strip(), "text")
    yield option.help
    lines = [f"- ini: `{option.ini}`", f"- default: {_default(option)}"]
    commands = [name for name, given in OF_COMMANDS.items() if option in given]
    if commands:
        flag = option.flag.replace("--loraperf-", "--")
        lines.append(f"- also `{flag}` of {', '.join(f'`loraperf {name}`' for name in commands)}")
    yield "\n".join(lines)


def _default(option: Option) -> str:
    value = getattr(Settings(), option.field)
    if not option.metavar:
        return "on" if value else "off"
    if value is None or value == ():
        return "none"
    return f"`{value:g}s`" if isinstance(value, float) else f"`{value}`"


def made_fixtures() -> dict[str, Any]:
    """Return the fixtures for users by name, those of strategies too."""
    fixture = type(fixtures.lora_pipeline)
    found = {name: value for name, value in vars(fixtures).items() if isinstance(value, fixture)}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def fixtures_page() -> str:
    """Return the page of the fixtures."""
    found = made_fixtures()
    own = [f"{strategy.name}_pipeline" for strategy in (*SHIPPED, NO_LORA)]
    rows = [(f"`{name}`", prose(found[name])) for name in own]
    return page(
        "Fixtures",
        "pytest_loraperf/fixtures.py",
        *(part for name in found if name not in own for part in _fixture(name, found[name])),
        "## One for each strategy",
        "What `lora_pipeline` is, of one strategy:",
        table(("fixture", ""), rows),
    )


def _fixture(name: str, found: Any) -> Iterator[str]:
    function = found._get_wrapped_function()  # noqa: SLF001 - pytest shows a fixture's function nowhere else
    yield f"## `{name}`"
    yield f"{prose(function)}\n\n- scope: {found._fixture_function_marker.scope}"  # noqa: SLF001 - nor its scope
    called = vars(fixtures).get(function.__annotations__["return"].partition(" | ")[0])
    if called in (fixtures.LoraPipeline, fixtures.RegisterWorkload, fixtures.RunRace):
        yield fenced(signature(name, called.__call__, bound=True))
        yield prose(called.__call__)


def hooks() -> str:
    """Return the page of the hooks."""
    found = {name: value for name, value in vars(hookspec).items() if name.startswith("pytest_loraperf_")}
    return page(
        "Hooks",
        "pytest_loraperf/hookspec.py",
        "For a `conftest.py` or a plugin of yours.",
        *(
            part
            for name, hook in found.items()
            for part in (f"## `{name}`", fenced(f"def {signature(name, hook)}: ..."), prose(hook))
        ),
    )


STATUSES = {
    Status.PASS: "it holds",
    Status.FAIL: "it does not hold; the test fails",
    Status.INCONCLUSIVE: "cannot tell; the test fails, unless `--loraperf-inconclusive=warn`",
    Status.SKIPPED: "it was not judged, and the message says why; the test does not fail for it",
}


def verdicts() -> str:
    """Return the page of the verdicts."""
    assert set(STATUSES) == set(Status)
    shown = [field.name for field in fields(VerdictRecord)]
    return page(
        "Verdicts",
        "pytest_loraperf/verdict/codes.py",
        "A failed gate is a line `loraperf CODE: MESSAGE` of the test's failure: what was found, the limit, and "
        "what to do. Its detail is a section of the report under the same code. Results files have each verdict "
        f"with {', '.join(f'`{name}`' for name in shown)}; JUnit XML has a property `loraperf_CODE` for each.",
        table(("status", "meaning"), ((f"`{status}`", meaning) for status, meaning in STATUSES.items())),
        "## Codes",
        table(
            ("code", "asked for by", "what is judged"),
            ((f"`{code}`", asked, judged) for code, (asked, judged) in MEANINGS.items()),
        ),
        "The order guard fails a test with [codes of its own](../rules/README.md).",
    )
