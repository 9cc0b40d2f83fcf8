"""On GitHub: annotations beside the failing tests' lines, and the summary of the step."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

CPU = "--loraperf-device=cpu"
SUITE = """
    import pytest

    @pytest.mark.latency_budget("3s")
    @pytest.mark.parametrize("seconds", [2.0, 4.0])
    def test_step(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name=f"step{seconds:g}")

    def test_plain():
        assert False, "loraperf latency: not ours"
"""
OVER = (
    "step4 took 4.000 s (4.000 s–4.000 s, 9 rounds), 33%25 over the latency budget of 3.000 s; "
    "make it faster or raise the budget"
)
ANNOTATED = "::error file=test_it.py,line=3,title=latency test_it.py%3A%3Atest_step[4.0]::" + OVER
CANNOT_TELL = """
    import itertools
    import pytest

    @pytest.mark.latency_budget("3s")
    def test_noisy(gpu_workload, clock):
        times = itertools.cycle([1.0, 5.0])
        gpu_workload(lambda: clock.spend(next(times)), name="noisy")
"""


@pytest.fixture
def summary(clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on GitHub, whose step has this summary."""
    path = clocked.path / "summary.md"
    path.write_text("")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(clocked.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CI", raising=False)
    return path


def commands(result: pytest.RunResult) -> list[str]:
    """The lines that GitHub's runner takes for commands."""
    return [line for line in result.outlines if line.lstrip().startswith("::")]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_failed_verdict_is_annotated_at_its_test(clocked: pytest.Pytester, summary: Path, workers: str) -> None:
    clocked.makepyfile(test_it=SUITE)
    run = clocked.runpytest_subprocess if workers == "-n2" else clocked.runpytest
    result = run(CPU, workers)
    result.assert_outcomes(passed=1, failed=2)
    assert commands(result) == [ANNOTATED]
    assert result.outlines[-1] == ANNOTATED  # after all else, on a line of its own
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("\n### pytest-loraperf: 1 failed, 1 passed\n")
    assert "| `test_it.py::test_step[4.0]` | latency | FAIL | step4 took 4.000 s" in text
    assert "- `test_it.py::test_step[2.0]` passed its latency gate by far; it could be: `@pytest" in text


@pytest.mark.parametrize("option", ["-s", "-qq", "--no-summary", "-x", "-v", "-pno:terminal"])
def test_it_is_annotated_however_pytest_talks(clocked: pytest.Pytester, summary: Path, option: str) -> None:
    clocked.makepyfile(test_it=SUITE)
    assert commands(clocked.runpytest(CPU, option)) == [ANNOTATED]
    assert summary.read_text(encoding="utf-8")


def test_the_path_is_that_of_the_workspace(
    clocked: pytest.Pytester, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked.makepyfile(test_it=SUITE)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(clocked.path.parent))
    assert commands(clocked.runpytest(CPU)) == [
        ANNOTATED.replace("file=test_it", f"file={clocked.path.name}/test_it")
    ]
    # In a container, the variable may be of a folder of the host: pytest's root is the next best.
    monkeypatch.setenv("GITHUB_WORKSPACE", "/elsewhere")
    assert commands(clocked.runpytest(CPU)) == [ANNOTATED]
    assert summary.read_text(encoding="utf-8").count("### pytest-loraperf") == 2


def test_what_cannot_tell_warns_once_where_it_may(clocked: pytest.Pytester, summary: Path) -> None:
    clocked.makepyfile(test_it=CANNOT_TELL)
    arguments = (CPU, "--loraperf-rounds=12")
    (error,) = commands(clocked.runpytest(*arguments))
    assert error.startswith(
        "::error file=test_it.py,line=4,title=latency test_it.py%3A%3Atest_noisy::noisy took 2.236 s "
    )
    result = clocked.runpytest(*arguments, "--loraperf-inconclusive=warn")
    result.assert_outcomes(passed=1)
    assert commands(result) == [error.replace("::error", "::warning", 1)]
    assert "1 cannot tell" in summary.read_text(encoding="utf-8")


def test_what_makes_the_run_doubtful_warns(clocked: pytest.Pytester, summary: Path) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("3s")
        def test_short(gpu_workload, clock):
            gpu_workload(lambda: clock.spend(1e-6), name="short")
    """)
    result = clocked.runpytest(CPU)
    said = "short took 1.000 us, too short to be timed; repeat the work inside the callable"
    assert commands(result) == [f"::warning title=loraperf validity::{said}"]
    assert f"- validity: {said}" in summary.read_text(encoding="utf-8")


@pytest.mark.usefixtures("summary")
def test_of_many_as_many_as_github_shows(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("3s")
        @pytest.mark.parametrize("number", range(12))
        def test_step(gpu_workload, clock, number):
            gpu_workload(clock.spend, 4.0, name="step")
    """)
    found = commands(clocked.runpytest(CPU))
    assert len(found) == 10
    assert found[-1] == "::error title=loraperf::3 more are in the log: GitHub shows 10 errors of a step"
    assert (
        len(
            commands(
                clocked.runpytest(
                    CPU,
                    "--deselect=test_of_many_as_many_as_github_shows.py::test_step[0]",
                    "--deselect=test_of_many_as_many_as_github_shows.py::test_step[1]",
                )
            )
        )
        == 10
    )


@pytest.mark.usefixtures("summary")
def test_what_fails_as_expected_is_no_error(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.xfail
        @pytest.mark.latency_budget("3s")
        def test_step(gpu_workload, clock):
            gpu_workload(clock.spend, 4.0, name="step")
    """)
    result = clocked.runpytest(CPU)
    result.assert_outcomes(xfailed=1)
    assert commands(result) == []


@pytest.mark.usefixtures("summary")
def test_other_failures_of_ours_are_annotated_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        class Pipeline:
            pass

        def test_it(fused_pipeline):
            pass
    """,
        build="""
        def build(pipe):
            pipe.enable_model_cpu_offload()
            pipe.load_lora_weights("ghost.safetensors")
            pipe.fuse_lora()
    """,
    )
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def lora_model():
            return "tiny"
    """)
    found = commands(pytester.runpytest(CPU, "--loraperf-lint"))
    assert [re.sub(r"(allowed are|pipe.fuse_lora) .*", r"\1 …", line) for line in found] == [
        "::error file=build.py,line=4,title=LRP106 [fuse-after-offload]::pipe.fuse_lora …",
        "::error file=test_it.py,line=4,title=loraperf test_it.py%3A%3Atest_it::model: got 'tiny'; allowed are …",
    ]


@pytest.mark.usefixtures("summary")
def test_a_wrong_order_is_annotated_with_its_calls(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        from pytest_loraperf.hooks.guard import GUARD
        from pytest_loraperf.order.runtime.findings import Finding

        def test_it(pytestconfig):
            sites = ("here:  app.py:4: pipe.fuse_lora()", "after: app.py:2: pipe.to(float8)")
            pytestconfig.stash[GUARD].found(Finding("LRP101", "it fades", sites))
    """
    )
    assert commands(pytester.runpytest(CPU)) == [
        "::error file=test_it.py,line=4,title=LRP101 test_it.py%3A%3Atest_it::"
        "it fades%0Ahere: app.py:4: pipe.fuse_lora()%0Aafter: app.py:2: pipe.to(float8)"
    ]


def test_where_another_plugin_annotates_failures_they_are_not_doubled(
    clocked: pytest.Pytester, summary: Path
) -> None:
    clocked.makepyfile(test_it=SUITE)
    # It is registered by the name of its entry point.
    conftest = clocked.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + "\n"
        + "def pytest_addhooks(pluginmanager):\n"
        + "    pluginmanager.register(object(), 'pytest_github_actions_annotate_failures')\n"
    )
    assert commands(clocked.runpytest(CPU)) == []
    assert summary.read_text(encoding="utf-8")


# --- when, and where it cannot be written -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["option", "ini"])
def test_it_can_be_switched_off(clocked: pytest.Pytester, summary: Path, way: str) -> None:
    clocked.makepyfile(test_it=SUITE)
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_github = off")
    result = clocked.runpytest(CPU, *(["--loraperf-github=off"] if way == "option" else []))
    result.assert_outcomes(passed=1, failed=2)
    assert commands(result) == []
    assert summary.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("way", ["option", "ini"])
def test_it_can_be_switched_on(
    clocked: pytest.Pytester, summary: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    clocked.makepyfile(test_it=SUITE)
    assert commands(clocked.runpytest(CPU)) == []
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_github = on")
    result = clocked.runpytest(CPU, *(["--loraperf-github=on"] if way == "option" else []))
    assert commands(result) == [ANNOTATED]
    assert summary.read_text(encoding="utf-8").count("### pytest-loraperf") == 1


@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_word_that_is_not_understood(pytester: pytest.Pytester, way: str) -> None:
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_github = yes")
    result = pytester.runpytest(*(["--loraperf-github=yes"] if way == "option" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    source = "--loraperf-github" if way == "option" else "ini value loraperf_github"
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {source}: got 'yes'; allowed are auto, on, off"])


def test_a_summary_that_cannot_be_written_is_told_and_the_run_goes_on(
    clocked: pytest.Pytester, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked.makepyfile(test_it=SUITE)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary / "below"))
    result = clocked.runpytest(CPU, "-k", "2.0")
    assert result.ret == pytest.ExitCode.OK
    said = (
        f"GITHUB_STEP_SUMMARY={summary}/below: cannot be written: Not a directory; the table is in the log alone"
    )
    assert f"warning: {said}" in re.sub(r"\s+", " ", result.stdout.str())
    (annotated,) = commands(result)
    assert annotated == f"::warning title=loraperf warning::{said}"


@pytest.mark.usefixtures("summary")
def test_a_step_without_a_summary_is_told(clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked.makepyfile(test_it=SUITE)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    result = clocked.runpytest(CPU, "-k", "2.0")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["warning: GITHUB_STEP_SUMMARY is not set; no summary is written (--loraperf-github=off asks for none)"]
    )


def test_a_run_that_measures_nothing_writes_nothing(pytester: pytest.Pytester, summary: Path) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert commands(result) == []
    assert summary.read_text(encoding="utf-8") == ""
    assert os.environ["GITHUB_ACTIONS"] == "true"
