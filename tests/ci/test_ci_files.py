"""The CI files are what GitHub and GitLab take, and hold to what their linters ask; each check is seen to fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ci_steps import Step, read_steps
from ci_tools import ROOT, find_tool

CPU, GPU, GITLAB = "examples/ci/github-cpu.yml", "examples/ci/github-gpu.yml", "examples/ci/gitlab-ci.yml"
WORKFLOWS = "examples/downstream_repo/.github/workflows"
OWN_CPU, OWN_GPU = f"{WORKFLOWS}/loraperf-cpu.yml", f"{WORKFLOWS}/loraperf-gpu.yml"
SCHEMAS = {
    "action.yml": ("vendor.github-actions",),
    CPU: ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    GPU: ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    OWN_CPU: ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    OWN_GPU: ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    GITLAB: ("vendor.gitlab-ci",),
}
ONE_SCHEMA = [(name, schema) for name, schemas in SCHEMAS.items() for schema in schemas]
SCRIPTS = [
    ("action.yml", None),
    (CPU, "cpu"),
    (GPU, "measure"),
    (GPU, "propose"),
    (OWN_CPU, "cpu"),
    (OWN_GPU, "measure"),
    (GITLAB, "loraperf-cpu"),
    (GITLAB, "loraperf-gpu"),
]
# A user's own runner has labels that actionlint cannot know; `queue` is newer than some versions of it.
ACTIONLINT = (
    "-ignore",
    'label "gpu" is unknown',
    "-ignore",
    'unexpected key "queue"',
    "-shellcheck=",
    "-pyflakes=",
)


def ran(*command: str | Path, text: str = "", cwd: Path | None = None) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=text, cwd=cwd)
    return done.returncode, done.stdout + done.stderr


def broken(folder: Path, name: str, good: str, bad: str) -> Path:
    """A copy with a mistake in it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert good in text
    path = folder / Path(name).name
    path.write_text(text.replace(good, bad), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "schema"), ONE_SCHEMA)
def test_it_holds_to_the_schema(name: str, schema: str) -> None:
    status, output = ran(find_tool("check-jsonschema"), "--builtin-schema", schema, ROOT / name)
    assert status == 0, output


@pytest.mark.parametrize(
    ("name", "schema", "good", "bad"),
    [
        ("action.yml", "vendor.github-actions", "using: composite", "using: composed"),
        (CPU, "vendor.github-workflows", "runs-on:", "run-on:"),
        (GPU, "custom.github-workflows-require-timeout", "timeout-minutes: 5", "# no limit"),
        (GITLAB, "vendor.gitlab-ci", "when: always", "when: allways"),
    ],
)
def test_the_schema_finds_a_mistake(tmp_path: Path, name: str, schema: str, good: str, bad: str) -> None:
    path = broken(tmp_path, name, good, bad)
    status, output = ran(find_tool("check-jsonschema"), "--builtin-schema", schema, path)
    assert status == 1, output


def zizmor(*paths: Path) -> tuple[int, str]:
    return ran(find_tool("zizmor"), "--offline", "--persona=auditor", "--config", ROOT / "zizmor.yml", *paths)


def test_the_audit_finds_nothing() -> None:
    status, output = zizmor(*(ROOT / name for name in ("action.yml", CPU, GPU, OWN_CPU, OWN_GPU)))
    assert status == 0, output


@pytest.mark.parametrize(
    ("name", "good", "bad", "found"),
    [
        ("action.yml", '--format github -- "${paths[@]}"', "${{ inputs.lint }}", "template-injection"),
        (CPU, "persist-credentials: false", "persist-credentials: true", "artipacked"),
        (CPU, "contents: read", "contents: write", "excessive-permissions"),
        (CPU, "actions/checkout@v6", "someone/checkout@v6", "unpinned-uses"),
        (GPU, "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
    ],
)
def test_the_audit_finds_a_mistake(tmp_path: Path, name: str, good: str, bad: str, found: str) -> None:
    status, output = zizmor(broken(tmp_path, name, good, bad))
    assert status > 0
    assert f"[{found}]" in output


def shellcheck(step: Step) -> tuple[int, str]:
    return ran(find_tool("shellcheck"), "--shell=bash", "-", text=f"set -e\n{step.script}")


@pytest.mark.parametrize(("name", "job"), SCRIPTS)
def test_its_scripts_are_clean(name: str, job: str | None) -> None:
    found = {step.name: shellcheck(step) for step in read_steps(ROOT / name, job)}
    assert found
    assert {step: output for step, (status, output) in found.items() if status} == {}


def test_shellcheck_finds_a_mistake() -> None:
    status, output = shellcheck(Step("unquoted", "words=$1\npytest $words\n"))
    assert status == 1
    assert "SC2086" in output


@pytest.mark.parametrize("name", [CPU, GPU, OWN_CPU, OWN_GPU])
def test_actionlint_finds_nothing(name: str) -> None:
    found = shutil.which("actionlint")
    if found is None:
        pytest.skip(
            "actionlint is not on the PATH; no package of pip brings the program itself, so CI does without"
        )
    status, output = ran(found, *ACTIONLINT, ROOT / name)
    assert status == 0, output


def test_the_hooks_are_what_pre_commit_takes(tmp_path: Path) -> None:
    validate = (find_tool("pre-commit"), "validate-manifest")
    status, output = ran(*validate, ROOT / ".pre-commit-hooks.yaml")
    assert status == 0, output
    status, output = ran(*validate, broken(tmp_path, ".pre-commit-hooks.yaml", "entry:", "entrance:"))
    assert status == 1
    assert "Missing required key: entry" in output


def test_a_tool_that_is_missing_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match="no-such-tool is not installed here; run: pip install --group test"
    ):
        find_tool("no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is not installed here"):
        find_tool("no-such-tool")
