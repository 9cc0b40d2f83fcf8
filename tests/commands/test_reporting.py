"""``loraperf report``: what it writes of stored results, and what it refuses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_history import H100, STEADY, results, times, write

from pytest_loraperf.cli import main

DEMO = str(Path(__file__).parents[2] / "benchmarks" / "h200" / "demo.json")


def test_everything_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(
        tmp_path,
        results(2, {"fused": times(1.2)}),
        results(1, {"fused": STEADY}),
        results(1, {"fused": STEADY}, machine=replace(H100, name="A10")),
    )
    outputs = [tmp_path / name for name in ("deep/page.html", "table.md", "charts.png")]
    words = [f"--{name}={path}" for name, path in zip(("html", "markdown", "png"), outputs, strict=True)]
    assert main(["report", *map(str, files), *words, "--gpu-budget=24GB"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {path}" for path in outputs]
    page = outputs[0].read_text(encoding="utf-8")
    assert "2026-11-01 18:00" in page
    assert "not in the history, of another machine, model or request: run3.json" in page
    assert "24 GB (25769803776 bytes)" in page
    markdown = outputs[1].read_text(encoding="utf-8")
    assert markdown.startswith("| strategy | steps |")
    assert "| strategy | run | s/generation | interval | VRAM runtime | change | interval | verdict |" in markdown
    assert "|  | 2026-11-02 18:00 | 1.200 | \\[1.176–1.224\\] | 1 GB | 1.200× | 1.176–1.224 | FAIL |" in markdown
    assert outputs[2].read_bytes().startswith(b"\x89PNG")


def test_without_an_output_the_table_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path, results(1, {"fused": STEADY}), results(2, {"fused": times(1.2)}))
    assert main(["report", str(second)]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("qwen on H100 (cuda:0), torch 2.11.0")
    assert "2026-11-02" not in alone
    assert main(["report", str(second), str(first)]) == 0
    both = capsys.readouterr().out
    assert both.startswith(alone)
    assert "1.200×  1.176–1.224  FAIL" in both


def test_the_newest_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, results(2, {"newest": STEADY}), results(1, {"oldest": STEADY}))
    assert main(["report", *map(str, files)]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("newest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json"], "results nowhere.json: cannot be read: No such file or directory; check the path"),
        ([DEMO, "--gpu-budget=14"], "--gpu-budget: size '14': write a positive number and a unit"),
        ([DEMO, "--max-slowdown=5"], "--max-slowdown: percentage '5': write at least 0%"),
        ([DEMO, "--html=/proc/nowhere/a.html"], "--html=/proc/nowhere/a.html: cannot be written: "),
        ([DEMO, "--png=/proc/nowhere/a.png"], "--png=/proc/nowhere/a.png: cannot be written: "),
        ([DEMO, "--markdown=/proc/nowhere/a.md"], "--markdown=/proc/nowhere/a.md: cannot be written: "),
        ([DEMO, f"--html={DEMO}"], f"--html={DEMO} is one of the results files too; name another"),
        (
            [DEMO, "--html=one.file", "--png=one.file"],
            "--png=one.file is the file of --html too; name another",
        ),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"loraperf: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = write(tmp_path, results(1, {}))
    out = tmp_path / "charts.png"
    assert main(["report", str(file), f"--png={out}"]) == 2
    assert capsys.readouterr().err == (
        f"loraperf: --png={out}: the results hold nothing that can be drawn; measure a strategy\n"
    )


@pytest.mark.parametrize("option", ["--html", "--png"])
def test_without_the_extra_it_names_it(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr("pytest_loraperf.writable.find_spec", lambda name: None if "vl" in name else known(name))
    assert main(["report", DEMO, f"{option}={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err == (
        f"loraperf: {option}: the report needs vl_convert, not installed here: "
        "pip install 'pytest-loraperf[report]'\n"
    )


def test_tables_need_neither_torch_nor_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; from pytest_loraperf.cli import main; "
        f"main(['report', {DEMO!r}, '--markdown', {str(tmp_path / 'a.md')!r}]); main(['history', {DEMO!r}]); "
        "sys.exit(bool({'torch', 'jinja2', 'vl_convert'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_bench_and_effect_write_the_page_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.html"
    tiny = ["--model", "synthetic:tiny", "--device", "cpu"]
    assert main(["bench", *tiny, "--rounds", "3", "--strategies", "standard_lora", "--html", str(out)]) == 0
    assert "synthetic:tiny on CPU" in out.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["bench", *tiny, "--html", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"loraperf: --html={tmp_path}: cannot be written: ")
    assert main(["bench", *tiny, "--html", str(out), "--json", str(out)]) == 2
    assert (
        capsys.readouterr().err == "loraperf: --json and --html name the same file; give each a file of its own\n"
    )
    assert main(["effect", "nowhere.safetensors", *tiny, "--html", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"loraperf: --html={tmp_path}: cannot be written: ")
