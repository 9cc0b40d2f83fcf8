"""The composite action: what its steps call, with stand-ins for the programs, and that no input is ever run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ci_steps import Outcome, default_inputs, read_steps, run_steps
from ci_tools import ROOT
from stand_ins import StandIns, make_stand_ins

INSTALL, LINT, GATES = "Install", "Lint the order of operations", "Run the gates"
DEFAULTS = ["-m", "pytest", "--loraperf-model=synthetic:tiny", "--loraperf-device=cpu"]
RESULTS = "--loraperf-json=loraperf-results.json"
HOSTILE = "$(touch run) `touch run`; touch run\ntouch run && touch run | ${IFS}"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Stand-ins for all that the CI files call, and an empty folder to run them in."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return make_stand_ins(tmp_path / "bin")


def run(stand_ins: StandIns, **inputs: str) -> dict[str, Outcome]:
    action = ROOT / "action.yml"
    given = default_inputs(action) | {name.replace("_", "-"): text for name, text in inputs.items()}
    return run_steps(read_steps(action), given, stand_ins.environ)


def gates(stand_ins: StandIns) -> list[str]:
    (words,) = (words for words in stand_ins.calls("python") if words[:2] == ["-m", "pytest"])
    return words


def test_the_defaults_are_the_cpu_tier(stand_ins: StandIns) -> None:
    assert run(stand_ins) == {INSTALL: "success", LINT: "success", GATES: "success"}
    index = ["--index-url", "https://download.pytorch.org/whl/cpu"]
    assert stand_ins.calls("python")[:2] == [
        ["-m", "pip", "install", *index, "torch", "torchvision"],
        ["-m", "pip", "install", "--", "/actions/loraperf[diffsynth,torchao]"],
    ]
    assert stand_ins.calls("loraperf") == [["lint", "--format", "github", "--", "."]]
    assert gates(stand_ins) == [*DEFAULTS, RESULTS]


def test_each_input_reaches_its_option(stand_ins: StandIns) -> None:
    run(
        stand_ins,
        package="pytest-loraperf==0.1.0",
        torch_index="",
        lint="src 'my scripts'",
        tests="tests/lora 'tests/with blank'",
        model="pretrained:here",
        device="cuda",
        gpu_budget="14GB",
        baseline="baseline.json",
        update_baseline="true",
        results="out/results.json",
        args="-k 'fast and small' -x",
    )
    assert stand_ins.calls("python")[0] == ["-m", "pip", "install", "--", "pytest-loraperf==0.1.0"]
    assert stand_ins.calls("loraperf") == [["lint", "--format", "github", "--", "src", "my scripts"]]
    assert gates(stand_ins) == [
        *("-m", "pytest", "--loraperf-model=pretrained:here", "--loraperf-device=cuda", "--gpu-budget=14GB"),
        *("--loraperf-baseline=baseline.json", "--loraperf-update-baseline", "--loraperf-json=out/results.json"),
        *("tests/lora", "tests/with blank", "-k", "fast and small", "-x"),
    ]


def test_empty_inputs_leave_it_to_the_suite(stand_ins: StandIns) -> None:
    assert run(stand_ins, extras="", lint="", model="", device="")[LINT] == "skipped"
    assert stand_ins.calls("python")[1] == ["-m", "pip", "install", "--", "/actions/loraperf"]
    assert gates(stand_ins) == ["-m", "pytest", RESULTS]


def test_every_input_is_declared_and_used() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"\binputs\.([\w-]+)", text)) == set(default_inputs(ROOT / "action.yml"))


def test_no_expression_stands_in_a_script() -> None:
    workflows = [("cpu", "cpu"), ("gpu", "measure"), ("gpu", "propose")]
    files: list[tuple[str, str | None]] = [(f"examples/ci/github-{name}.yml", job) for name, job in workflows]
    files.append(("action.yml", None))
    scripts = [step.script for name, job in files for step in read_steps(ROOT / name, job)]
    assert len(scripts) == 10
    assert not [script for script in scripts if "${{" in script]


@pytest.mark.parametrize(
    "name",
    [
        *("package", "extras", "torch_index", "lint", "tests", "model", "device"),
        *("gpu_budget", "baseline", "update_baseline", "results", "args"),
    ],
)
def test_what_an_input_holds_is_never_run(stand_ins: StandIns, name: str) -> None:
    run(stand_ins, **{name: HOSTILE})
    assert stand_ins.calls("python")
    assert not Path("run").exists()


def test_a_finding_of_the_linter_stops_it(stand_ins: StandIns) -> None:
    stand_ins.fail("loraperf", 1)
    assert run(stand_ins) == {INSTALL: "success", LINT: "failure", GATES: "skipped"}


def test_a_failed_gate_fails_it(stand_ins: StandIns) -> None:
    stand_ins.fail("python", 1)
    assert run(stand_ins, torch_index="")[INSTALL] == "failure"
    action = read_steps(ROOT / "action.yml")[-1:]
    assert run_steps(action, default_inputs(ROOT / "action.yml"), stand_ins.environ) == {GATES: "failure"}


@pytest.mark.parametrize(
    ("name", "text", "step", "message"),
    [
        ("update_baseline", "yes", GATES, "::error::loraperf: update-baseline: only true and false are allowed"),
        ("args", "-k 'fast", GATES, "::error::loraperf: tests, args: a quote is not closed; close it"),
        ("lint", 'src "docs', LINT, "::error::loraperf: lint: a quote is not closed; close it"),
    ],
)
def test_what_is_not_understood_is_told(
    stand_ins: StandIns,
    capfd: pytest.CaptureFixture[str],
    name: str,
    text: str,
    step: str,
    message: str,
) -> None:
    assert run(stand_ins, **{name: text})[step] == "failure"
    assert message in capfd.readouterr().out.splitlines()
    assert not [words for words in stand_ins.calls("python") if "pytest" in words]
