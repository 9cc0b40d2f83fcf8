"""Names that try to break out: what a run writes of them can be read, and holds no order to who reads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.formats import FORMATS
from pytest_loraperf.report.benchmark_json import write_benchmarks
from pytest_loraperf.report.markdown import markdown_table
from pytest_loraperf.report.results import (
    ComparisonRecord,
    Machine,
    Results,
    StrategyResult,
    VerdictRecord,
    read_results,
    write_results,
)
from pytest_loraperf.report.step_summary import run_markdown
from pytest_loraperf.report.terminal import summary as terminal_summary
from pytest_loraperf.workflow import no_command

CPU = "--loraperf-device=cpu"
HOSTILE = {
    "workflow command": "::error file=a.py,line=1::pwned",
    "old workflow command": "##[error]pwned",
    "command after a break": "x\n::add-mask::pwned\r\n::stop-commands::pwned",
    "percent": "100%0A::error::pwned%25",
    "script": "<script>alert('pwned')</script><img src=x onerror=pwned>",
    "table": "a | b || `c` | \\| *d* [e](http://f) $g$ ~~h~~",
    "heading": "\n# pwned\n\n- pwned\n<!-- /loraperf:demo -->",
    "cdata": "]]><pwned/><![CDATA[ &amp; &#0;",
    "ansi": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J\x9b1A\x08",
    "surrogate": "half \udcff\ud800 a pair",
    "nul": "a\x00b",
    "direction": "a\u202eb\u2028c\ufeff",
    "long": "x" * 10_000,
    "long words": "::error::pwned " * 700,
    "empty": " ",
}
names = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
SUITE = """
    import pytest

    @pytest.mark.latency_budget("3s")
    @pytest.mark.parametrize("seconds", [4.0], ids=[{name!r}])
    def test_over(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name={name!r})

    @pytest.mark.latency_budget(ratio=0.9, of="old")
    @pytest.mark.parametrize("seconds", [1.0], ids=[{name!r}])
    def test_far_under(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name={name!r})
        gpu_workload(clock.spend, 2.0, name="old")
"""


@pytest.fixture
def step(clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The summary of a step on GitHub."""
    path = clocked.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(clocked.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    return path


@names
def test_a_run(clocked: pytest.Pytester, step: Path, name: str) -> None:
    clocked.makepyfile(test_it=SUITE.format(name=name))
    result = clocked.runpytest(
        CPU, "--loraperf-json=r.json", "--loraperf-benchmark-json=b.json", "--junit-xml=j.xml", "-rN"
    )
    result.assert_outcomes(passed=1, failed=1)
    _check_terminal(result.stdout.str())
    _check_annotations(result.outlines)
    _check_markdown(step.read_text(encoding="utf-8"))
    _check_junit(clocked.path / "j.xml")
    _check_json(clocked.path)


@pytest.mark.parametrize("key", ["command after a break", "surrogate"])
def test_a_run_of_workers(clocked: pytest.Pytester, step: Path, key: str) -> None:
    clocked.makepyfile(test_it=SUITE.format(name=HOSTILE[key]))
    result = clocked.runpytest_subprocess(
        CPU, "--loraperf-json=r.json", "--loraperf-benchmark-json=b.json", "--junit-xml=j.xml", "-rN", "-n1"
    )
    result.assert_outcomes(passed=1, failed=1)
    _check_annotations(result.outlines)
    _check_markdown(step.read_text(encoding="utf-8"))
    _check_junit(clocked.path / "j.xml")
    _check_json(clocked.path)


def _check_terminal(text: str) -> None:
    """Neither the failure nor our section has a control character, or a line that is a command."""
    failure = text[text.index("\nloraperf latency: ") : text.index("= 1 failed, 1 passed")]
    assert all(letter.isprintable() or letter == "\n" for letter in failure)
    assert not re.search(r"^\s*::", failure, re.MULTILINE)
    assert "##[" not in failure[failure.index("= loraperf =") :]


def _check_annotations(lines: list[str]) -> None:
    """The one command is ours, and the last line."""
    (command,) = (line for line in lines if line.lstrip().startswith("::"))
    assert command == lines[-1]
    place, _, message = command.removeprefix("::").partition("::")
    assert re.fullmatch(r"error file=test_it\.py,line=3,title=latency test_it\.py%3A%3Atest_over[^,:]*", place)
    assert "took" in message or "…" in message
    assert message.isprintable()
    assert len(place) < 1000
    assert len(message) <= 4096 * 3


def _check_markdown(text: str) -> None:
    """The table of the verdicts has two rows of four cells, and no cell has markup."""
    rows = re.findall(r"^\|.*", text, re.MULTILINE)
    assert [row.replace(r"\|", "").count("|") for row in rows] == [5, 5, 5, 5]
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert not re.search(r"(?<!\\)[<>$]", outside)
    assert not re.search(r"^(# |<!--|::)", text, re.MULTILINE)
    assert "pwned" not in re.sub(r"^(\||- ).*", "", text, flags=re.MULTILINE)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert all(len(row) < 3000 for row in rows)


def _check_junit(path: Path) -> None:
    root = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - pytest wrote it just now
    assert [each.tag for each in root.iter() if "pwned" in each.tag] == []
    verdicts = [each.get("value", "") for each in root.iter("property") if each.get("name") == "loraperf_verdicts"]
    assert verdicts == ["latency=FAIL", "latency=PASS"]
    (failure,) = root.iter("failure")
    assert failure.get("message", "").startswith("Failed: loraperf latency: ")


def _check_json(folder: Path) -> None:
    found = read_results(folder / "r.json")
    assert [each.status for each in found.verdicts] == ["FAIL", "PASS"]
    data = json.loads((folder / "b.json").read_text(encoding="utf-8"))
    data_names = [each["fullname"] for each in data["benchmarks"]]
    assert len(set(data_names)) == 3
    for each in data_names:
        assert each.isprintable()
        assert 0 < len(each.encode()) <= 1024
    # Half of a surrogate pair is refused by strict readers, and by this.
    json.dumps([data, found.to_json()], ensure_ascii=False).encode()


# --- results, however they came to be -----------------------------------------------------------------------------


def results(name: str) -> Results:
    """A run in which each text is this one."""
    machine = Machine(device=name, name=name, driver=name, torch=name, backend=name, memory_kind=name)
    row = StrategyResult(
        steps=(name, name),
        scheme=name,
        scheme_reason=name,
        mistake=name,
        adapters=(name,),
        samples_s=(1.0, 2.0),
        error=name,
        model=name,
        requests=({"prompt": name, name: [name]},),
    )
    verdict = VerdictRecord(nodeid=name, strategy=name, code=name, status=name, message=name, tighter=name)
    rounds = ComparisonRecord(arms=(name,), interleaved=True, samples_s={name: (1.0,)}, tests={name: name})
    return Results(
        plugin_version="0.1.0",
        created="2026-11-23T18:00:00+00:00",
        command=name,
        machine=machine,
        model=name,
        request={"prompt": name},
        strategies={name: row},
        verdicts=(verdict,),
        comparisons=(rounds,),
        notes=(name,),
    )


@names
def test_the_table_in_markdown(name: str) -> None:
    for text in (markdown_table(results(name)), run_markdown(results(name))):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
        assert {row.count("|") for row in rows} <= {5, 14}
        outside = re.sub(r"`[^`\n]*`", "", text)
        assert not re.search(r"(?<!\\)[<>$]", outside)
        lines = [line for line in text.splitlines() if line]
        assert all(line.startswith(("| ", "- ", "### pytest-loraperf: ")) for line in lines)


@names
@pytest.mark.parametrize("width", [40, 120])
def test_the_terminal(name: str, width: int) -> None:
    for line in map(no_command, terminal_summary(results(name), width)):
        assert line.isprintable()
        assert not line.lstrip().startswith("::")


@names
def test_the_files(tmp_path: Path, name: str) -> None:
    write_results(tmp_path / "r.json", results(name))
    write_benchmarks(tmp_path / "b.json", results(name))
    plain = name.encode(errors="backslashreplace").decode()
    assert read_results(tmp_path / "r.json") == results(plain)
    data = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert all(each["fullname"].isprintable() for each in data["benchmarks"])
    again = replace(results(plain), notes=())
    assert Results.from_json(again.to_json()) == again


@names
def test_the_linter_on_github(name: str) -> None:
    finding = Finding(path=f"{name}.py", line=1, col=0, code="LRP101", name="fuse-into-quantized", message=name)
    (line,) = FORMATS["github"]([finding])
    assert "\n" not in line
    assert "\r" not in line
    place = line.removeprefix("::").partition("::")[0]
    assert re.fullmatch(r"error file=[^,:]*,line=1,col=1,title=LRP101 fuse-into-quantized", place)


@names
def test_a_strategy_cannot_have_such_a_name(pytester: pytest.Pytester, name: str) -> None:
    if name.isidentifier():
        return  # as long as it may be
    pytester.makeconftest(f"""
        from pytest_loraperf import FUSE, Strategy

        def pytest_loraperf_strategies(config):
            return [Strategy({name!r}, (FUSE,))]
    """)
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (said,) = (line for line in result.errlines if line.startswith("ERROR: loraperf: strategy "))
    assert said.endswith(": a name is letters, digits and _, not a digit first")
    assert said.isprintable()
