"""Sweeps: what is asked for, what is measured, and the plot."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_loraperf import writable
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.cli import main
from pytest_loraperf.commands import benchmark
from pytest_loraperf.commands.sweep import Sweep, parse_sweep
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.results import Latency, Machine, Results, SweepPoint, read_results
from pytest_loraperf.report.sweep import sweep_lines
from pytest_loraperf.request import TINY_REQUEST, Request
from pytest_loraperf.run.gathering import gather
from pytest_loraperf.session import Session

TINY = ["bench", "--model", "synthetic:tiny", "--device", "cpu", "--rounds", "3", "--strategies", "fused"]


@pytest.mark.parametrize(
    ("text", "sweep"),
    [("steps=4,8", Sweep("steps", (4, 8))), ("resolution= 512 ,768,512", Sweep("resolution", (512, 768)))],
)
def test_a_sweep_is_an_axis_and_its_values(text: str, sweep: Sweep) -> None:
    assert parse_sweep(text) == sweep


@pytest.mark.parametrize("text", ["speed=1", "steps", "steps=", "steps=4,x", "steps=0", "height=-1", "=4"])
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(
        LoraperfError, match=r"--sweep: got .*; write one of resolution, height, width, steps, batch"
    ):
        parse_sweep(text)


def test_a_point_has_a_request_for_each_image() -> None:
    (one,) = Sweep("resolution", (32,)).requests(TINY_REQUEST, 1, 32)
    assert (one.height, one.width, one.steps) == (32, 32, TINY_REQUEST.steps)
    assert [each.seed for each in Sweep("batch", (3,)).requests(TINY_REQUEST, 1, 3)] == [0, 1, 2]
    assert [each.steps for each in Sweep("steps", (8,)).requests(TINY_REQUEST, 2, 8)] == [8, 8]


def test_bench_sweeps_pipelines_that_are_built_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = Bench._build_steps

    def counted(bench: Bench, arm: object) -> None:
        built.append(arm.name)  # type: ignore[attr-defined]  # an Arm
        build(bench, arm)  # type: ignore[arg-type]  # the same

    look = Bench.runtime_peak_of

    def short(bench: Bench, name: str, request: Request) -> int:
        if request.steps == 3:
            raise LoraperfError("no room")
        return look(bench, name, request)

    monkeypatch.setattr(Bench, "_build_steps", counted)
    monkeypatch.setattr(Bench, "runtime_peak_of", short)
    out, plot = tmp_path / "out.json", tmp_path / "plot.svg"
    sweeps = ["--sweep", "resolution=32,64", "--sweep", "batch=1,3", "--sweep", "steps=3,2"]
    assert main([*TINY, *sweeps, "--json", str(out), "--plot", str(plot)]) == 1  # steps=3 fails
    assert sorted(built) == ["fused", "no_lora", "standard_lora"]
    points = read_results(out).sweep
    assert [(point.axis, point.value, point.images) for point in points] == [
        *(("resolution", 32, 1), ("resolution", 64, 1)),
        *(("batch", 1, 1), ("batch", 3, 3)),
        *(("steps", 3, 1), ("steps", 2, 1)),
    ]
    assert points[0].runtime_peak is not None
    assert points[1].runtime_peak is not None
    assert points[0].runtime_peak < points[1].runtime_peak
    assert all(point.latency and point.latency.rounds == 3 for point in points[:4])
    built_in = [
        point.images * (point.image_s_with_setup - point.latency.median_s)
        for point in points[2:4]
        if point.latency and point.image_s_with_setup
    ]
    assert built_in == pytest.approx([built_in[0]] * 2)  # one image bears all of it, three a third each
    assert built_in[0] > 0
    assert points[4].error == "no room"
    said = capsys.readouterr().out
    assert "error in fused at steps 3: no room" in said
    assert "s/image with set-up" in said
    strategy = json.loads(out.read_text())["strategies"]["fused"]
    assert [request["height"] for request in strategy["requests"]] == [64]  # the table is of what it was asked for
    drawn = plot.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "seconds an image" in drawn


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            ["--sweep", "resolution=64,50"],
            "height=50; QwenImagePipeline rounds to multiples of 16: write 48 or 64",
        ),
        (["--width", "10"], "width=10; QwenImagePipeline rounds to multiples of 16: write 16"),
        (["--sweep", "steps=2,1"], "steps=1; QwenImagePipeline's scheduler gives NaN below 2"),
        (["--steps", "1"], "steps=1; QwenImagePipeline's scheduler gives NaN below 2"),
    ],
)
def test_what_would_run_as_another_request_is_refused_before_anything_is_measured(
    given: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, *given]) == 2
    said, told = capsys.readouterr()
    assert f"request: {why}" in told
    assert "s/generation" not in said


def test_a_strategy_that_cannot_be_built_leaves_the_request_to_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--strategies", "quantize_then_fuse,fused", "--scheme", "torchao_fp8_w8a8", "--height", "40"]
    assert main([*TINY, *given]) == 2
    assert "height=40" in capsys.readouterr().err


def test_a_point_over_the_budget_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    given = ["--height", "32", "--width", "32", "--sweep", "resolution=32,64", "--json", str(out)]
    assert main([*TINY, *given]) == 0
    small, large = (point.runtime_peak or 0 for point in read_results(out).sweep)
    assert small < large
    capsys.readouterr()
    assert main([*TINY, *given, "--gpu-budget", f"{large - 1}B"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "loraperf gpu-budget: fused at resolution 64 needs " in said
    assert "fused at resolution 32 needs" not in said
    within, over = read_results(out).sweep
    assert within.over is None
    assert over.over is not None
    assert over.latency is not None


def ctrl_c() -> None:
    raise KeyboardInterrupt  # a shell's background job has the signal ignored


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", [ctrl_c, terminate])
def test_what_was_measured_before_the_end_of_its_time_is_shown_and_written(
    end: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    peak = Bench.runtime_peak_of

    def interrupted(bench: Bench, name: str, request: Request) -> int:
        if request.steps == 3:
            end()
        return peak(bench, name, request)

    def again(session: Session) -> Results:
        if end is terminate:
            terminate()  # whatever sends it is impatient
        return gather(session)

    monkeypatch.setattr(benchmark, "gather", again)
    monkeypatch.setattr(Bench, "runtime_peak_of", interrupted)
    out = tmp_path / "out.json"
    assert main([*TINY, "--strategies", "fused,fused", "--sweep", "steps=2,3,4", "--json", str(out)]) == 130
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "loraperf: interrupted"
    assert "Traceback" not in said.err
    assert "warning: interrupted; this is what was measured until then" in said.out
    results = read_results(out)
    assert [point.value for point in results.sweep] == [2]
    assert results.strategies["fused"].latency is not None
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = Bench.runtime_peak_of

    def interrupted(bench: Bench, name: str, request: Request) -> int:
        terminate()
        return peak(bench, name, request)

    monkeypatch.setattr(Bench, "runtime_peak_of", interrupted)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert main([*TINY, "--sweep", "steps=2"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_strategy_that_is_named_twice_is_swept_once(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main([*TINY, "--strategies", "fused,fused", "--sweep", "steps=2", "--json", str(out)]) == 0
    assert len(read_results(out).sweep) == 1


def test_batch_is_images_a_sample(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main([*TINY, "--batch", "2", "--json", str(out)]) == 0
    strategy = json.loads(out.read_text())["strategies"]["fused"]
    assert [request["seed"] for request in strategy["requests"]] == [0, 1]


def test_advice_comes_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--advise"]) == 0
    said = capsys.readouterr().out
    assert "loader.fuse_lora_to_base_model(pipe.dit, load_state_dict(" in said or "hotload=True" in said
    assert main(TINY) == 0
    assert "from_pretrained" not in capsys.readouterr().out


def test_the_code_is_the_last_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--gpu-budget", "1KB", "--advise"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == 'image.save("output.png")'
    assert "nothing fits a card of 1 KB" in said
    assert any(line.startswith("loraperf gpu-budget: fused needs ") for line in said)


def test_another_backend_has_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    assert main([*TINY, "--backend", "diffusers", "--advise"]) == 0
    said = capsys.readouterr().out
    assert "code to paste: there is none for the backend diffusers, only for diffsynth" in said
    assert "# ---" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "speed=1"], "--sweep: got 'speed=1'; write one of resolution"),
        (
            ["--sweep", "steps=2", "--sweep", "steps=4"],
            "--sweep: steps is swept twice; write all its values in one",
        ),
        (["--cfg", "nan"], "request: cfg=nan; a finite number is allowed, 1 switches guidance off"),
        (["--seed", str(2**64)], f"request: seed={2**64}; torch takes {-(2**63)} to {2**64 - 1}"),
        (["--batch", "0"], "--batch: got 0; 1 to 1000 images are allowed"),
        (["--batch", "1000000000"], "--batch: got 1000000000; 1 to 1000 images are allowed"),
        (["--sweep", "batch=1,1001"], "--sweep: batch=1001; 1 to 1000 images are allowed"),
        (["--plot", "a.svg"], "--plot: there is nothing to draw without --sweep"),
        (["--sweep", "steps=2", "--plot", "a.gif"], "--plot=a.gif: the name must end in .svg, .png, .html"),
        (["--sweep", "steps=2", "--plot", "/proc/nowhere/a.svg"], "--plot=/proc/nowhere/a.svg: cannot be written"),
        (["--sweep", "steps=2", "--plot", "a.html", "--html", "a.html"], "--plot=a.html is the file of another"),
    ],
)
def test_usage(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("loraperf: ")
    assert message in line


def test_the_extra_is_named_where_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(writable, "find_spec", lambda _: None)
    assert main([*TINY, "--sweep", "steps=2", "--plot", str(tmp_path / "a.svg")]) == 2
    assert (
        "--plot: the report needs jinja2 and vl_convert, not installed here: pip install"
        in capsys.readouterr().err
    )


def point(value: int, seconds: float | None, **more: object) -> SweepPoint:
    latency = None if seconds is None else Latency(seconds, (seconds * 0.9, seconds * 1.1), 9)
    return SweepPoint(axis="steps", value=value, strategy="fused", latency=latency, **more)  # type: ignore[arg-type]


RESULTS = Results(
    plugin_version="0",
    created="today",
    machine=Machine(device="cuda:0", name="<b>a card</b>", torch="2.15"),
    model="synthetic:full",
    request={},
    strategies={},
    sweep=(
        point(8, 2.0, runtime_peak=2**30),
        point(4, 1.0, runtime_peak=2**29),
        point(99, None, error="too\nlarge"),
    ),
)


def test_lines_of_a_sweep_are_in_the_order_of_its_values() -> None:
    assert list(sweep_lines(RESULTS, 120)) == [
        "",
        "steps  strategy  s/image        interval  VRAM runtime",
        "    4  fused       1.000  [0.9000–1.100]        512 MB",
        "    8  fused       2.000   [1.800–2.200]          1 GB",
        "   99  fused       error               –             –",
        "error in fused at steps 99: too large",
    ]


@pytest.mark.parametrize(
    ("name", "start"), [("a.svg", b"<svg"), ("a.png", b"\x89PNG"), ("a.html", b"<!doctype html>")]
)
def test_the_plot_is_what_its_name_says(name: str, start: bytes, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    from pytest_loraperf.page.sweep import write_plot

    write_plot(tmp_path / name, RESULTS)
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(start)
    assert b"<b>" not in drawn


def test_results_keep_a_sweep() -> None:
    assert Results.from_json(json.loads(json.dumps(RESULTS.to_json()))) == RESULTS
    assert replace(RESULTS, sweep=()).to_json()["sweep"] == []
