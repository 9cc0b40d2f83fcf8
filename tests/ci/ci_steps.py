"""Runs what a CI file runs: the ``run:`` steps of a workflow or a composite action, or the ``script:`` of a GitLab job.

In their order, in the present folder, with the shell and the variables that the runner gives them. ``uses:`` steps are
left out. An expression that is not known here is an error: nothing is skipped because it is not understood.

    python ci_steps.py github-cpu.yml --job cpu
    python ci_steps.py action.yml --input tests=tests --input gpu-budget=14GB
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

Outcome = Literal["success", "failure", "skipped"]
DEFAULT_SHELL = ("bash", "-e")
SHELLS = {"bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail")}
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
CHOICE = re.compile(r"inputs\.([\w-]+) && '([^']*)' \|\| '([^']*)'")
NOT_EMPTY = re.compile(r"inputs\.([\w-]+) != ''")
ALWAYS = "always()"


@dataclass(frozen=True)
class Step:
    """One script, the shell that runs it, its own variables and its condition; the last two with expressions."""

    name: str
    script: str
    shell: tuple[str, ...] = DEFAULT_SHELL
    env: Mapping[str, str] = field(default_factory=dict)
    condition: str = ""


def read_steps(path: Path, job: str | None = None) -> list[Step]:
    """Return the scripts of a file; one that is no composite action needs the name of a job."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "runs" in document:
        return list(_github_steps(document["runs"]["steps"]))
    jobs = document.get("jobs", document)
    if job not in jobs:
        raise SystemExit(f"ci_steps: {path}: there is no job {job!r}; it has {', '.join(map(str, jobs))}")
    if "steps" in jobs[job]:
        return list(_github_steps(jobs[job]["steps"]))
    return [Step(str(job), "\n".join(jobs[job]["script"]), SHELLS["bash"])]


def _github_steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    for number, step in enumerate(steps):
        if "run" in step:
            yield Step(
                step.get("name", f"step {number}"),
                step["run"],
                SHELLS[step["shell"]] if "shell" in step else DEFAULT_SHELL,
                {name: str(text) for name, text in step.get("env", {}).items()},
                str(step.get("if", "")),
            )


def default_inputs(path: Path) -> dict[str, str]:
    """Return the inputs of a composite action, each with its default."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: str(each.get("default", "")) for name, each in document.get("inputs", {}).items()}


def run_steps(steps: Sequence[Step], inputs: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Outcome]:
    """Run the steps in the present folder until one fails, then those alone that are always run."""
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        runner = _Runner(Path(folder), inputs, dict(environ))
        for step in steps:
            failed = "failure" in outcomes.values()
            wanted = runner.holds(step.condition, failed=failed)
            outcomes[step.name] = runner.run(step) if wanted else "skipped"
            print(f"=== {step.name}: {outcomes[step.name]}", flush=True)
    return outcomes


class _Runner:
    def __init__(self, folder: Path, inputs: Mapping[str, str], environ: dict[str, str]) -> None:
        self._folder, self._inputs, self._environ = folder, inputs, environ
        self._path, self._summary = folder / "path", folder / "summary"
        self._path.touch()
        environ |= {"CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(folder)}
        environ |= {"GITHUB_PATH": str(self._path), "GITHUB_STEP_SUMMARY": str(self._summary)}
        environ |= {"GITHUB_WORKSPACE": str(Path.cwd())}

    def holds(self, condition: str, *, failed: bool) -> bool:
        """Whether a step is run."""
        parts = [part for part in condition.split(" && ") if part]
        if failed and ALWAYS not in parts:
            return False
        return all(part == ALWAYS or self._is_not_empty(part) for part in parts)

    def run(self, step: Step) -> Outcome:
        """Run one step as its shell would, the folders that earlier ones put on the PATH first; show its summary."""
        self._summary.write_text("", encoding="utf-8")
        script = self._folder / "script.sh"
        script.write_text(step.script, encoding="utf-8")
        environ = self._environ | {name: self._expand(text) for name, text in step.env.items()}
        added = reversed(self._path.read_text(encoding="utf-8").splitlines())
        environ["PATH"] = os.pathsep.join([*added, environ["PATH"]])
        done = subprocess.run([*step.shell, str(script)], env=environ, stdin=subprocess.DEVNULL, check=False)
        print(self._summary.read_text(encoding="utf-8"), end="", flush=True)
        return "failure" if done.returncode else "success"

    def _expand(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self._value(found[1]), text)

    def _value(self, expression: str) -> str:
        if choice := CHOICE.fullmatch(expression):
            name, yes, no = choice.groups()
            return yes if self._inputs[name] == "true" else no
        if expression == "github.token":
            return "a-token"
        return self._inputs[expression.removeprefix("inputs.")]

    def _is_not_empty(self, part: str) -> bool:
        found = NOT_EMPTY.fullmatch(part)
        if found is None:
            raise ValueError(f"the condition {part!r} is not known here")
        return self._inputs[found[1]] != ""


def main() -> int:
    """Run a file's steps; exit 0 where none failed."""
    parser = argparse.ArgumentParser(description="run what a CI file runs")
    parser.add_argument("file", type=Path)
    parser.add_argument("--job")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    inputs = default_inputs(given.file) | dict(each.split("=", 1) for each in given.input)
    environ = os.environ | {"GITHUB_ACTION_PATH": str(given.file.resolve().parent)}
    outcomes = run_steps(read_steps(given.file, given.job), inputs, environ)
    return 1 if "failure" in outcomes.values() else 0


if __name__ == "__main__":
    sys.exit(main())
