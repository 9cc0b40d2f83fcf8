"""The seed's scripts: each is run as a user runs it, on the tiny model, and takes the steps that code_for writes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from pytest_loraperf.advise.code import Lora, Setting, step_lines
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.models import Synthetic
from pytest_loraperf.order.lint.run import lint_paths
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.strategies import StepKind, Strategies

FOLDER = Path(__file__).parents[2] / "examples/qwen_image/model_inference"
SCRIPTS = {
    "Qwen-Image-Edit-LoRA-Ghost-Quantized.py": ("lora_then_quantize", ("fp8_storage",)),
    "Qwen-Image-Edit-LoRA-Ghost-Quantized-Optimized.py": (
        "fused_then_quantize",
        ("torchao_fp8_w8a8", "fp8_storage"),
    ),
    "Qwen-Image-Edit-LoRA-Ghost-LowVRAM.py": ("low_vram", ("fp8_storage",)),
    "Qwen-Image-Edit-LoRA-Ghost-LowVRAM-Optimized.py": ("low_vram_optimized", ("fp8_storage",)),
}


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    imports = os.pathsep.join(filter(None, (str(FOLDER.parents[2]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": imports, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)


def run_here(script: str, *arguments: str, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it in this process, where torch is imported already."""
    monkeypatch.chdir(cwd)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    runpy.run_path(str(FOLDER / script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_saves_an_image(script: str, tmp_path: Path) -> None:
    done = run(script, "--synthetic", "--device", "cpu", "--output", "out.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "saved out.png: 64×64"
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (64, 64)
        assert image.getextrema() != ((0, 0), (0, 0), (0, 0))


def test_script_edits_an_image_with_the_lora_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "in.png")
    given = ["--synthetic", "--device", "cpu", "--steps", "2", "--image", "in.png", "--output"]
    pictures = []
    for name, more in (("a.png", []), ("b.png", ["--lora", "a-synthetic.safetensors", "--alpha", "0"])):
        script = "Qwen-Image-Edit-LoRA-Ghost-LowVRAM-Optimized.py"
        run_here(script, *given, name, *more, cwd=tmp_path, monkeypatch=monkeypatch)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_takes_the_steps_of_its_strategy(script: str) -> None:
    source = (FOLDER / script).read_text(encoding="utf-8")
    name, schemes = SCRIPTS[script]
    for scheme in schemes:
        places = []
        strategy = Strategies()[name].with_scheme(scheme).with_scheme("stream", StepKind.OFFLOAD)
        strategy = strategy.compiled() if scheme == "torchao_fp8_w8a8" else strategy
        for step in strategy.steps:
            lines = step_lines(
                step, strategy, Setting(Synthetic(), [Lora("lora", plain=False)], TINY_REQUEST, "cuda")
            )
            text = "\n".join(lines).replace("alpha=1", "alpha=given.alpha").replace('"lora"', "given.lora")
            text = text.replace("6 * 2**30", "given.vram").replace("8 * 2**30", "given.vram")
            found = max(source.find(f"\n{text}\n"), source.find(f"\n{textwrap.indent(text, '    ')}\n"))
            assert found > 0, text
            places.append(found)
        assert places == sorted(places)


def test_scripts_are_clean_by_our_own_linter() -> None:
    assert {path.name for path in FOLDER.glob("Qwen*.py")} == set(SCRIPTS)
    assert lint_paths([FOLDER]) == []


USAGE = {
    "name a LoRA with --lora and an image with --image, or try it with --synthetic": [],
    "--image nowhere.png: cannot be read: ": ["--synthetic", "--image", "nowhere.png"],
    "model folder here: transformer/diffusion_pytorch_model*.safetensors is missing; lay it out as here is": [
        *("--model", "here", "--lora", "a.safetensors", "--image", "in.png"),
    ],
    "adapter nowhere.safetensors: cannot be read": ["--synthetic", "--lora", "nowhere.safetensors"],
    "size '8': write a positive number and a unit": ["--synthetic", "--vram", "8"],
    "offload[stream]: a limit of 1 KB is too small": ["--synthetic", "--device", "cpu", "--vram", "1KB"],
}


@pytest.mark.parametrize("message", USAGE)
def test_bad_input_is_told(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "in.png")
    (tmp_path / "here").mkdir()
    with pytest.raises((LoraperfError, SystemExit)) as caught:
        run_here("Qwen-Image-Edit-LoRA-Ghost-LowVRAM.py", *USAGE[message], cwd=tmp_path, monkeypatch=monkeypatch)
    said = str(caught.value) if caught.errisinstance(LoraperfError) else capsys.readouterr().err
    assert message in said.splitlines()[-1]
    assert not (tmp_path / "ghost.png").exists()


def test_bad_input_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    script = "Qwen-Image-Edit-LoRA-Ghost-Quantized.py"
    done = run(script, "--synthetic", "--image", "nowhere.png", cwd=tmp_path)
    (line,) = (line for line in done.stderr.splitlines() if "nowhere" in line)
    assert line.startswith(f"{script}: --image nowhere.png: cannot be read: ")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_the_benchmark_prints_the_table_and_code_that_runs(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--strategies", "fused,low_vram_optimized", "--rounds", "3", "--steps", "2"]
    done = run("benchmark_lora_speed.py", *arguments, "--gpu-budget", "14GB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("no CUDA device here, the full model needs 44 GB: this is the tiny one")
    assert any(line.startswith("standard_lora ") for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("fastest "))
    assert [line.split("  ")[0] for line in lines[start : start + 3]] == [
        "fastest",
        "smallest",
        "fastest within 14 GB",
    ]
    code = [number for number, line in enumerate(lines) if line.startswith("# --- ")]
    assert 1 <= len(code) <= 2
    assert 'image.save("output.png")' in lines[code[-1] :]
