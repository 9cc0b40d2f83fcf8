"""``--loraperf-lint`` in pytest: which files get an item, what a failing one says, and how it is selected."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import pytest

SLOW = """\
def build(pipe):
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    pipe.load_lora(pipe.dit, path)
"""
FAST = """\
def build(pipe):
    pipe.load_lora(pipe.dit, path)
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
"""
MESSAGE = (
    "pipe.load_lora attaches a LoRA to a model that pipe.enable_vram_management quantized (src/app.py:2): "
    "right, but slow; load or fuse the LoRA first, then quantize"
)
LINT = "--loraperf-lint"


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A package with a mistake and a test module without one."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:asyncio -p no:rerunfailures -p no:hypothesispytest")
    for name, text in {
        "src/app.py": SLOW,
        "src/__init__.py": "",
        "src/data.txt": SLOW,
        "tests/conftest.py": "",
        "tests/test_app.py": "def test_it(): pass\n",
    }.items():
        file = pytester.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return pytester


def items(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line and " " not in line]


def test_each_python_file_has_an_item_and_one_with_a_finding_fails(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(LINT, "-v")
    result.assert_outcomes(passed=4, failed=1)
    text = result.stdout.str()
    assert re.findall(r"^(\S+::\S+) (\w+)", text, re.MULTILINE) == [
        ("src/__init__.py::loraperf-lint", "PASSED"),
        ("src/app.py::loraperf-lint", "FAILED"),
        ("tests/conftest.py::loraperf-lint", "PASSED"),
        ("tests/test_app.py::loraperf-lint", "PASSED"),
        ("tests/test_app.py::test_it", "PASSED"),
    ]
    assert "\n".join(
        [
            f"src/app.py:3:5: LRP102 [attach-after-quantize] {MESSAGE}",
            "     3 |     pipe.load_lora(pipe.dit, path)",
            "       |     ^",
            "==",
        ]
    ) in re.sub(r"={3,}", "==", text)
    result.stdout.fnmatch_lines(["FAILED src/app.py::loraperf-lint - *src/app.py:3:5: LRP102 *"])


@pytest.mark.parametrize("way", ["option", "ini", "native toml"])
def test_it_is_an_option_and_an_ini_value(pytester: pytest.Pytester, way: str) -> None:
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_lint = true\nloraperf_lint_select = LRP101, LRP102\n")
    if way == "native toml":
        (pytester.path / "pytest.toml").write_text(
            '[pytest]\nloraperf_lint = true\nloraperf_lint_select = "LRP102"'
        )
    arguments = [LINT, "--loraperf-lint-select=LRP102"] if way == "option" else []
    pytester.runpytest(*arguments).assert_outcomes(passed=4, failed=1)


@pytest.mark.parametrize("ini", ["", "loraperf_lint = false\nloraperf_lint_select = LRP102"])
def test_without_it_nothing_is_linted(pytester: pytest.Pytester, ini: str) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize("way", ["option", "ini"])
@pytest.mark.parametrize(
    ("name", "value", "failed"),
    [
        ("select", "LRP102", 1),
        ("select", "lrp101-LRP105", 1),
        ("select", "LRP103, LRP104", 0),
        ("ignore", "LRP102", 0),
        ("ignore", "LRP101", 1),
        ("ignore", "LRP1", 0),
    ],
)
def test_codes_are_selected_as_by_the_command(
    pytester: pytest.Pytester, way: str, name: str, value: str, failed: int
) -> None:
    if way == "ini":
        pytester.makeini(f"[pytest]\nloraperf_lint_{name} = {value}")
    arguments = [f"--loraperf-lint-{name}={value}"] if way == "option" else []
    pytester.runpytest(LINT, "src", *arguments).assert_outcomes(passed=2 - failed, failed=failed)


@pytest.mark.parametrize("name", ["select", "ignore"])
@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_word_that_is_no_code_is_a_usage_error(pytester: pytest.Pytester, name: str, way: str) -> None:
    if way == "ini":
        pytester.makeini(f"[pytest]\nloraperf_lint_{name} = LRP102,LRP9")
    arguments = [f"--loraperf-lint-{name}=LRP102,LRP9"] if way == "option" else []
    result = pytester.runpytest(LINT, *arguments)
    source = f"--loraperf-lint-{name}" if way == "option" else f"ini value loraperf_lint_{name}"
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: loraperf: {source}: 'LRP9' is no code; use one such as LRP102, LRP101-LRP109 or LRP1"]
    )


def test_an_ini_value_that_is_neither_true_nor_false_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nloraperf_lint = maybe")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: ini value loraperf_lint: invalid truth value 'maybe'; write true or false"]
    )


def test_noqa(pytester: pytest.Pytester) -> None:
    (pytester.path / "src/app.py").write_text(
        SLOW.replace("path)", "path)  # noqa: LRP102 - adapters are swapped")
    )
    pytester.runpytest(LINT, "src").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        (b"x = 1\npipe.load_lora(\n", "2:15", "'(' was never closed"),
        (b"# coding: klingon\n", "1:1", "unknown encoding: klingon"),
    ],
)
def test_an_unreadable_file_fails(pytester: pytest.Pytester, content: bytes, place: str, reason: str) -> None:
    (pytester.path / "src/app.py").write_bytes(content)
    result = pytester.runpytest(LINT, "src")
    result.assert_outcomes(passed=1, failed=1)
    message = f"src/app.py:{place}: LRP001 [unreadable] this file cannot be linted: {reason}"
    assert message in result.outlines
    pytester.runpytest(LINT, "src", "--loraperf-lint-ignore=LRP001").assert_outcomes(passed=2)


def test_a_file_that_goes_away_fails(pytester: pytest.Pytester) -> None:
    (pytester.path / "src/conftest.py").write_text(
        "import pathlib\n"
        "def pytest_collection_finish(session):\n"
        "    pathlib.Path(__file__).with_name('app.py').unlink()\n"
    )
    result = pytester.runpytest(LINT, "src")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["src/app.py:1:1: LRP001 * this file cannot be linted: No such file or directory"])


def test_a_test_that_leaves_the_folder_changes_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        atest="import os, pathlib\ndef test_it(): os.chdir(pathlib.Path(__file__).parent.parent)\n"
    )
    result = pytester.runpytest(LINT, "-o", "python_files=atest.py", "atest.py", "src")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["src/app.py:3:5: LRP102 *", "     3 |     pipe.load_lora(pipe.dit, path)"])


def test_files_are_named_from_where_pytest_was_started(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    monkeypatch.chdir(pytester.path / "tests")
    result = pytester.runpytest(LINT, "../src", "-v")
    result.stdout.fnmatch_lines(["*src/app.py::loraperf-lint*FAILED*", "../src/app.py:3:5: LRP102 *"])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["src/app.py"], ["src/app.py::loraperf-lint"]),
        (["src/app.py::loraperf-lint"], ["src/app.py::loraperf-lint"]),
        (["src", "src/app.py"], ["src/__init__.py::loraperf-lint", "src/app.py::loraperf-lint"]),
        (["src"], ["src/__init__.py::loraperf-lint", "src/app.py::loraperf-lint"]),
        (["tests/test_app.py"], ["tests/test_app.py::loraperf-lint", "tests/test_app.py::test_it"]),
        (["tests/test_app.py::test_it"], ["tests/test_app.py::test_it"]),
        (["-m", "loraperf_lint", "tests/test_app.py"], ["tests/test_app.py::loraperf-lint"]),
        (["-m", "not loraperf_lint"], ["tests/test_app.py::test_it"]),
        (["-k", "app and loraperf-lint", "src"], ["src/app.py::loraperf-lint"]),
        (["-k", "test_it"], ["tests/test_app.py::test_it"]),
        (
            ["--ignore=src", "--deselect=tests/conftest.py"],
            ["tests/test_app.py::loraperf-lint", "tests/test_app.py::test_it"],
        ),
        (
            ["-o", "norecursedirs=src", "-k", "loraperf-lint and not conftest"],
            ["tests/test_app.py::loraperf-lint"],
        ),
        (["-p", "no:loraperf-lint"], ["tests/test_app.py::test_it"]),
    ],
    ids=" ".join,
)
def test_what_is_selected(pytester: pytest.Pytester, arguments: list[str], found: list[str]) -> None:
    result = pytester.runpytest(LINT, "--strict-markers", "--strict-config", "--collect-only", "-q", *arguments)
    assert result.ret == pytest.ExitCode.OK
    assert items(result) == found


def test_collect_ignore_is_respected(pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text("collect_ignore_glob = ['src/*']\ncollect_ignore = ['tests']\n")
    assert items(pytester.runpytest(LINT, "--co", "-q")) == ["conftest.py::loraperf-lint"]


def test_alone_it_imports_no_file_that_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(script="raise SystemExit('this would load a model')")
    result = pytester.runpytest(LINT, "-m", "loraperf_lint", "script.py", "tests/test_app.py")
    result.assert_outcomes(passed=2)


def test_alone_it_forgets_no_failure_of_the_tests(pytester: pytest.Pytester) -> None:
    module = pytester.path / "tests/test_app.py"
    module.write_text("import nowhere\n")
    pytester.runpytest("tests").assert_outcomes(errors=1)
    pytester.runpytest(LINT, "-m", "loraperf_lint", "tests").assert_outcomes(passed=2)
    assert "tests/test_app.py" in (pytester.path / ".pytest_cache/v/cache/lastfailed").read_text()


def test_without_the_plugin_there_is_no_item(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nloraperf_lint = true")
    result = pytester.runpytest("-p", "no:loraperf", "--co", "-q", "-W", "ignore::pytest.PytestConfigWarning")
    assert items(result) == ["tests/test_app.py::test_it"]


def test_last_failed(pytester: pytest.Pytester) -> None:
    pytester.runpytest(LINT, "-p", "cacheprovider").assert_outcomes(passed=4, failed=1)
    pytester.runpytest(LINT, "-p", "cacheprovider", "--lf").assert_outcomes(failed=1)
    (pytester.path / "src/app.py").write_text(FAST)
    pytester.runpytest(LINT, "-p", "cacheprovider", "--lf").assert_outcomes(passed=1)


def test_last_failed_remembers_a_module_that_could_not_be_imported(pytester: pytest.Pytester) -> None:
    module = pytester.path / "tests/test_app.py"
    module.write_text("import nowhere\n")
    for arguments in ([], ["--lf"]):
        pytester.runpytest(LINT, "tests", *arguments).assert_outcomes(errors=1)
    module.write_text("def test_it(): pass\ndef test_other(): pass\n")
    result = pytester.runpytest(LINT, "tests", "--lf", "-v")
    result.stdout.fnmatch_lines(["tests/test_app.py::test_it PASSED*", "tests/test_app.py::test_other PASSED*"])


def test_junit_names_the_file(pytester: pytest.Pytester) -> None:
    pytester.runpytest(LINT, "src", "--junitxml=out.xml", "-o", "junit_family=xunit1")
    cases = ET.parse(pytester.path / "out.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    found = {case.get("file"): case for case in cases}
    assert set(found) == {"src/__init__.py", "src/app.py"}
    case = found["src/app.py"]
    assert (case.get("classname"), case.get("name"), case.get("line")) == ("src.app", "loraperf-lint", None)
    failure = case.find("failure")
    assert failure is not None
    assert str(failure.get("message")).startswith(
        f"Failed: src/app.py:3:5: LRP102 [attach-after-quantize] {MESSAGE}"
    )


def test_a_budget_is_not_held_against_it(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(
        LINT, "src", "tests", "--gpu-budget=1KB", "--loraperf-device=cpu", "--junitxml=out.xml"
    )
    result.assert_outcomes(passed=4, failed=1)
    root = ET.parse(pytester.path / "out.xml").getroot()  # noqa: S314 - pytest wrote it
    held = [case.get("name") for case in root.iter("testcase") if case.find("properties") is not None]
    assert held == ["test_it"]


def test_under_xdist(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    result = pytester.runpytest_subprocess(LINT, "-n2", "--loraperf-lint-ignore=LRP101")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines([f"src/app.py:3:5: LRP102 [[]attach-after-quantize] {MESSAGE}"])


@pytest.mark.parametrize("alone", [False, True])
def test_it_imports_no_torch(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins import what they like
    monkeypatch.delenv("PYTEST_ADDOPTS")
    (pytester.path / "src/app.py").write_text(f"import torch\n{FAST}")
    if alone:
        (pytester.path / "tests/test_app.py").write_text("import torch\n")
    pytester.makepyfile(
        import_lister="""
        import json, pathlib, sys

        def pytest_unconfigure():
            pathlib.Path("modules.json").write_text(json.dumps(list(sys.modules)))
        """
    )
    arguments = ["-m", "loraperf_lint", ".", "src/app.py"] if alone else []
    result = pytester.runpytest_subprocess("-p", "loraperf", "-p", "import_lister", LINT, *arguments)
    result.assert_outcomes(passed=5 if alone else 6)
    loaded = set(json.loads((pytester.path / "modules.json").read_text()))
    assert "pytest_loraperf.order.lint.collector" in loaded
    assert loaded & {"torch", "numpy", "diffsynth", "diffusers", "wrapt", "src.app", "app"} == set()


def test_the_marker_is_shown(pytester: pytest.Pytester) -> None:
    pytester.runpytest("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.loraperf_lint: what --loraperf-lint adds to a run has it, so that -m loraperf_lint *"]
    )
