"""``--loraperf-html``: written at the end of a run, whatever became of it, or refused before it."""

from __future__ import annotations

import importlib.util

import pytest
import vl_convert  # noqa: F401 - the inner runs of pytester share this process, which can import it only once

SUITE = """
    import pytest

    @pytest.mark.latency_budget("3s")
    @pytest.mark.parametrize("seconds", [2.0, 4.0])
    def test_step(gpu_workload, clock, seconds):
        gpu_workload(clock.spend, seconds, name=f"step{seconds:g}")
"""


@pytest.mark.parametrize("way", ["option", "ini"])
def test_written_at_the_end(clocked: pytest.Pytester, way: str) -> None:
    clocked.makepyfile(SUITE)
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_html = deep/page.html\nloraperf_device = cpu")
    given = ["--loraperf-html=deep/page.html", "--loraperf-device=cpu"] if way == "option" else []
    clocked.runpytest(*given).assert_outcomes(passed=1, failed=1)
    page = (clocked.path / "deep" / "page.html").read_text(encoding="utf-8")
    assert "1 failed" in page
    assert "step4 took 4.000 s" in page
    assert "test_written_at_the_end.py::test_step[2.0]" in page.replace("<wbr>", "")
    assert "step2 2.000 s" in page


def test_written_once_by_the_controller_with_what_all_workers_measured(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SUITE)
    clocked.runpytest_subprocess("--loraperf-html=page.html", "--loraperf-device=cpu", "-n2").assert_outcomes(
        passed=1, failed=1
    )
    page = (clocked.path / "page.html").read_text(encoding="utf-8")
    assert "step2 2.000 s" in page
    assert "step4 4.000 s" in page


def test_of_a_strategy_and_its_budget(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(fused_pipeline):
            fused_pipeline()
    """)
    result = pytester.runpytest("--loraperf-html=page.html", "--gpu-budget=1GB", "--loraperf-device=cpu")
    result.assert_outcomes(passed=1)
    page = (pytester.path / "page.html").read_text(encoding="utf-8")
    assert "1 GB (1073741824 bytes)" in page
    assert "runtime" in page  # the detail of the verdict on the budget
    assert 'id="memory-wide-title"' in page


@pytest.mark.parametrize("way", ["option", "ini"])
def test_without_the_extra_nothing_is_measured(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        "pytest_loraperf.writable.find_spec", lambda name: None if name == "vl_convert" else known(name)
    )
    pytester.makepyfile("raise SystemExit('collected')")
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_html = page.html")
    result = pytester.runpytest(*(["--loraperf-html=page.html"] if way == "option" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines == [
        "ERROR: loraperf: --loraperf-html: the report needs vl_convert, not installed here: "
        "pip install 'pytest-loraperf[report]'",
        "",
    ]
    assert not (pytester.path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loraperf-html=file/page.html"], "--loraperf-html=file/page.html: cannot be written: "),
        (
            ["--loraperf-html=out", "--loraperf-json=./out"],
            "--loraperf-json and --loraperf-html name the same file; give each a file of its own",
        ),
    ],
)
def test_a_file_that_cannot_be_the_page(pytester: pytest.Pytester, arguments: list[str], message: str) -> None:
    pytester.path.joinpath("file").write_text("", encoding="utf-8")
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {message}*"])
