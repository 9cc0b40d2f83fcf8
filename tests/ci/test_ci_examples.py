"""The jobs of the example files: what they call, and the pull request with a new baseline, against a real git."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from ci_steps import Step, default_inputs, main, read_steps, run_steps
from ci_tools import ROOT
from stand_ins import StandIns, make_stand_ins

from pytest_loraperf.options import OPTIONS

CPU, GPU, GITLAB = "examples/ci/github-cpu.yml", "examples/ci/github-gpu.yml", "examples/ci/gitlab-ci.yml"
MEASURED = ["--loraperf-device=cuda", "--gpu-budget=24GB", "--loraperf-baseline=loraperf-baseline.json"]
GIT = ("git", "-c", "user.name=me", "-c", "user.email=me@here", "-c", "init.defaultBranch=main")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Stand-ins for all that the CI files call, and an empty folder to run them in."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return make_stand_ins(tmp_path / "bin")


@pytest.mark.parametrize(("update", "more"), [("", []), ("true", ["--loraperf-update-baseline"])])
def test_the_gpu_tier_measures_in_an_environment_of_its_own(
    stand_ins: StandIns, update: str, more: list[str]
) -> None:
    steps = read_steps(ROOT / GPU, "measure")
    # The real one makes a python that the install step then calls.
    made = Step(
        "made", 'mkdir -p "$RUNNER_TEMP/loraperf/bin"; ln -s "$(command -v python)" "$RUNNER_TEMP/loraperf/bin"'
    )
    outcomes = run_steps([made, *steps], {"update-baseline": update}, stand_ins.environ)
    assert set(outcomes.values()) == {"success"}
    (venv,) = stand_ins.calls("python3")
    assert venv[:-1] == ["-m", "venv", "--clear"]
    assert stand_ins.calls("python") == [["-m", "pip", "install", "pytest-loraperf[diffsynth,torchao]"]]
    assert stand_ins.calls("loraperf") == [["doctor", "--device", "cuda"]]
    assert stand_ins.calls("pytest") == [[*MEASURED, *more, "--loraperf-json=loraperf-results.json"]]


def test_a_machine_that_cannot_measure_stops_it(stand_ins: StandIns) -> None:
    stand_ins.fail("loraperf", 1)
    steps = read_steps(ROOT / GPU, "measure")[1:]
    outcomes = run_steps(steps, {"update-baseline": ""}, stand_ins.environ)
    assert outcomes == {"Examine the machine": "failure", "Run the gates": "skipped"}


@pytest.mark.parametrize("update", ["", "--loraperf-update-baseline"])
def test_gitlab_measures_the_same(stand_ins: StandIns, update: str) -> None:
    environ = stand_ins.environ | {"LORAPERF_UPDATE": update}
    assert run_steps(read_steps(ROOT / GITLAB, "loraperf-gpu"), {}, environ) == {"loraperf-gpu": "success"}
    json, junit = "--loraperf-json=loraperf-results.json", "--junit-xml=loraperf-junit.xml"
    assert stand_ins.calls("pytest") == [[*MEASURED, *([update] if update else []), json, junit]]


def test_gitlab_runs_the_cpu_tier_of_github() -> None:
    github = [line for step in read_steps(ROOT / CPU, "cpu") for line in step.script.splitlines()]
    (gitlab,) = read_steps(ROOT / GITLAB, "loraperf-cpu")
    plain = gitlab.script.replace(" --junit-xml=loraperf-junit.xml", "")
    assert plain.splitlines() == [line.replace("--format github ", "") for line in github]


@pytest.mark.parametrize("name", [CPU, GPU, GITLAB, "action.yml"])
def test_each_option_is_one_of_ours(name: str) -> None:
    found = set(re.findall(r"--(?:loraperf|gpu)-[a-z-]+", (ROOT / name).read_text(encoding="utf-8")))
    assert found
    assert found <= {option.flag for option in OPTIONS}


def test_the_page_names_each_file() -> None:
    folder = ROOT / "examples" / "ci"
    links = {
        folder / link for link in re.findall(r"\]\(([^)#]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    }
    assert all(link.is_file() for link in links)
    assert set(folder.glob("*.yml")) <= links


@pytest.mark.parametrize("page", ["README.md", "examples/ci/README.md"])
def test_the_step_on_the_page_has_inputs_of_the_action(page: str) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (step,) = yaml.safe_load(shown)
    assert set(step["with"]) <= set(default_inputs(ROOT / "action.yml"))


def git(*words: str) -> str:
    return subprocess.run([*GIT, *words], capture_output=True, text=True, check=True).stdout


def cloned(stand_ins: StandIns) -> StandIns:
    """The present folder as a clone with a committed baseline, whose remote is bare."""
    git("init", "--quiet", "--bare", "../remote.git")
    git("clone", "--quiet", "../remote.git", ".")
    Path("loraperf-baseline.json").write_text("{}\n")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    git("push", "--quiet", "origin", "HEAD:main")
    github = {"RUN_ID": "77", "REF_NAME": "main", "SERVER_URL": "https://github.com", "REPOSITORY": "me/mine"}
    return StandIns(
        stand_ins.folder, stand_ins.environ | {f"GITHUB_{name}": text for name, text in github.items()}
    )


def test_a_new_baseline_becomes_a_pull_request(stand_ins: StandIns) -> None:
    there = cloned(stand_ins)
    Path("loraperf-baseline.json").write_text('{"records": {}}\n')
    Path("left.txt").write_text("by something else")
    steps = read_steps(ROOT / GPU, "propose")
    assert run_steps(steps, {}, there.environ) == {"Open a pull request": "success"}
    setup, create = there.calls("gh")
    assert setup == ["auth", "setup-git"]
    assert create[:6] == ["pr", "create", "--base", "main", "--head", "loraperf-baseline-77"]
    assert "https://github.com/me/mine/actions/runs/77" in create[-1]
    shown = git("--git-dir=../remote.git", "show", "--format=%an: %s", "--stat", "loraperf-baseline-77")
    assert shown.startswith("github-actions[bot]: Accept a new LoRA performance baseline\n")
    assert "loraperf-baseline.json | 2 +-" in shown
    assert "left.txt" not in shown


def test_a_baseline_that_is_the_same_is_not_proposed(
    stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    there = cloned(stand_ins)
    assert run_steps(read_steps(ROOT / GPU, "propose"), {}, there.environ) == {"Open a pull request": "success"}
    assert there.calls("gh") == []
    assert "there is nothing to propose" in capfd.readouterr().out


def test_the_right_to_write_is_not_where_the_tests_run() -> None:
    jobs = yaml.safe_load((ROOT / GPU).read_text(encoding="utf-8"))["jobs"]
    assert jobs["measure"]["permissions"] == {"contents": "read"}
    assert "self-hosted" not in jobs["propose"]["runs-on"]


def test_what_the_runner_does_not_know_is_an_error(
    stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"the condition 'github.actor == me' is not known here"):
        run_steps([Step("if", "true", condition="github.actor == me")], {}, stand_ins.environ)
    with pytest.raises(KeyError):
        run_steps([Step("env", "true", env={"A": "${{ secrets.A }}"})], {}, stand_ins.environ)
    file = tmp_path / "a.yml"
    file.write_text("jobs: {one: {steps: []}}")
    monkeypatch.setattr("sys.argv", shlex.split(f"ci_steps.py {file} --job two"))
    with pytest.raises(SystemExit, match=r"there is no job 'two'; it has one"):
        main()
