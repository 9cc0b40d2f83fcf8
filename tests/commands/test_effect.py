"""``loraperf effect``: what it finds, what it says, and what it makes of files and names that are wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.cli import main
from pytest_loraperf.commands.effect import _using_lora, effect_lines
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.report.results import (
    LoraCoverage,
    Machine,
    Results,
    StrategyResult,
    VerdictRecord,
    read_results,
)
from pytest_loraperf.run.gathering import _coverage
from pytest_loraperf.strategies import ATTACH, COMPILE, SHIPPED, Strategies, Strategy
from pytest_loraperf.verdict.effect import MIN_GAIN, judge_effect

TINY = ["--model", "synthetic:tiny", "--device", "cpu"]
LAYERS = 12


@pytest.fixture(scope="module")
def ghost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of 7 % of the weights of the modulations and MLPs, which are the largest layers."""
    dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    names = [name for name in linear_shapes(dit) if "_mlp." in name or "_mod." in name]
    assert len(names) == LAYERS
    return write_synthetic_adapter(tmp_path_factory.mktemp("lora") / "ghost.safetensors", weight_norms(dit, names))


def effect(*words: object) -> int:
    return main(["effect", *map(str, words)])


def test_a_weak_lora_is_lost_in_unscaled_fp8_and_kept_when_it_is_fused_before(
    ghost: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "effect.json"
    names = "quantize_then_fuse,fused_then_quantize"
    options = ["--strategies", names, "--scheme", "fp8_storage", "--json", out]
    assert effect(f"{ghost}:0.08", *TINY, *options) == 1

    data = json.loads(out.read_text())
    assert (data["schema"], data["model"], data["machine"]["name"]) == (1, "synthetic:tiny", "CPU")
    assert data["command"].startswith(f"loraperf effect {ghost}:0.08 --model synthetic:tiny")
    wrong, right = (data["strategies"][name] for name in names.split(","))
    assert wrong["adapters"] == right["adapters"] == ["ghost.safetensors:0.08"]
    assert wrong["lora"].keys() >= {"layers_matched", "layers_total", "rank", "gain_min", "gain_median", "gains"}
    assert len(wrong["lora"]["gains"]) == len(right["lora"]["gains"]) == LAYERS
    assert wrong["lora"]["gain_min"] == min(wrong["lora"]["gains"].values()) < 0.1
    assert max(wrong["lora"]["gains"].values()) < 0.5
    assert right["lora"]["gain_min"] > MIN_GAIN
    assert right["lora"]["gain_median"] >= 0.99
    assert {each["strategy"]: each["status"] for each in data["verdicts"]} == {
        "quantize_then_fuse": "FAIL",
        "fused_then_quantize": "PASS",
    }
    assert read_results(out).strategies["quantize_then_fuse"].mistake

    said_, told = capsys.readouterr()
    assert told == ""
    lines = said_.splitlines()
    assert lines[0].startswith("ghost.safetensors:0.08 in synthetic:tiny on CPU (cpu), torch ")
    assert lines[1].split() == ["strategy", "layers", "rank", "lowest", "gain", "median", "gain", "verdict"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:4]}
    assert rows["quantize_then_fuse"][:3] == ["✗", "12/34", "64"]
    assert rows["quantize_then_fuse"][-1] == "FAIL"
    kept = right["lora"]
    shown = [f"{kept[key]:.3f}" for key in ("gain_min", "gain_median")]
    assert rows["fused_then_quantize"] == ["12/34", "64", *shown, "PASS"]
    verdict = judge_effect("quantize_then_fuse", wrong["lora"]["gains"], MIN_GAIN)
    assert f"loraperf lora-effect: {verdict.message}" in " ".join(line.strip() for line in lines)
    assert lines[-10:] == list(verdict.detail)


def test_stacked_adapters_that_are_there_pass(ghost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert effect(f"{ghost}:0.5", ghost, *TINY, "--strategies", "fused,standard_lora,fused") == 0
    said_ = capsys.readouterr().out
    assert said_.startswith("ghost.safetensors:0.5, ghost.safetensors:1 in synthetic:tiny")
    assert said_.count("PASS") == 2
    assert "lora-effect" not in said_


def test_the_floor_is_the_users(ghost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [f"{ghost}:0.5", *TINY, "--strategies", "quantize_then_fuse"]
    assert effect(*asked, "--min-gain", "0.3") == 0
    assert effect(*asked, "--min-gain", "1") == 1
    assert "but at least 1 is needed" in " ".join(capsys.readouterr().out.split())


def test_layers_that_fit_nothing_are_said(ghost: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stray.safetensors"
    stray = {f"text.{i}.lora_{part}.weight": torch.ones(2, 2) for i in range(4) for part in "AB"}
    save_file(load_file(ghost) | stray, path)
    assert effect(path, *TINY, "--strategies", "fused") == 0
    said_ = " ".join(capsys.readouterr().out.split())
    assert (
        f"adapter {path}: 4 of its 16 layers fit none of the model's: text.0, text.1, text.2 and 1 more" in said_
    )


def test_a_lora_without_effect_fails(ghost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert effect(f"{ghost}:0", *TINY, "--strategies", "fused") == 1
    said_ = capsys.readouterr().out
    assert ["fused", "12/34", "64", "–", "–", "FAIL"] in [line.split() for line in said_.splitlines()]
    assert "loraperf lora-effect: fused: the adapter's matrices or its scale are zero" in said_


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    save_file(dict(tensors), path)
    return path


@pytest.fixture
def files(ghost: Path, tmp_path: Path) -> dict[str, Path]:
    tensors = load_file(ghost)
    name = "transformer_blocks.0.img_mod.1.lora_B.default.weight"
    wrong = {
        "missing": tmp_path / "missing.safetensors",
        "truncated": tmp_path / "truncated.safetensors",
        "pickled": tmp_path / "pickled.safetensors",
        "named a pickle": tmp_path / "a.pt",
        "NaN": write(tmp_path / "nan.safetensors", tensors | {name: tensors[name] * float("nan")}),
        "wide": write(tmp_path / "wide.safetensors", {key: torch.ones(64, 64) for key in tensors}),
        "strange": write(
            tmp_path / "strange.safetensors", {f"unet.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
        ),
    }
    wrong["truncated"].write_bytes(ghost.read_bytes()[:-100])
    wrong["pickled"].write_bytes(pickle.dumps(1))
    return wrong


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot be read: No such file or directory; check the path"),
        ("truncated", "damaged or truncated ("),
        ("pickled", "it holds a pickle, not safetensors; save it with safetensors.torch"),
        ("named a pickle", ".pt files are pickles, which can run code when loaded; convert it: "),
        ("NaN", "NaN or infinite values in transformer_blocks.0.img_mod.1; train or save it again"),
        ("wide", "made for another architecture, 12 of 12 layers differ in shape (out, in): "),
        ("strange", "no layer of the model is matched; the adapter has unet; the model has "),
    ],
)
def test_adapters_that_cannot_be_used_are_usage(
    files: dict[str, Path], kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert effect(files[kind], *TINY, "--strategies", "fused,standard_lora", "--json", out) == 2
    shown, told = capsys.readouterr()
    (line,) = told.splitlines()
    assert line.startswith(f"loraperf: adapter {files[kind]}: {message}")
    assert shown == ""
    assert not out.exists()


def test_a_damaged_adapter_is_told_before_a_model_is_built(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffSynth, "build", lambda *_, **__: pytest.fail("built"))
    assert effect(files["truncated"], *TINY) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "fuzed"], "unknown strategy 'fuzed'; did you mean fused?"),
        (
            ["--strategies", "fused,no_lora"],
            "strategy no_lora uses no LoRA, so there is none to look for; leave it out",
        ),
        (["--min-gain", "2"], "--min-gain: got '2'; a number from 0 to 1 is allowed"),
        (["--min-gain", "most"], "--min-gain: got 'most'; a number from 0 to 1 is allowed"),
        (["--min-gain", "nan"], "--min-gain: got 'nan'; a number from 0 to 1 is allowed"),
        (["--model", "tiny"], "--model: got 'tiny'; allowed are auto, synthetic:tiny"),
        (["--device", "gpu"], "--device: got 'gpu'; allowed are auto, cpu, cuda and cuda:N"),
        (["--json", "/proc/nowhere/out.json"], "--json=/proc/nowhere/out.json: cannot be written"),
        (["--model", "synthetic:full"], "synthetic:full has 20.43 B parameters and needs a CUDA device"),
    ],
)
def test_usage_errors_are_one_line(
    ghost: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert effect(ghost, *TINY, *options) == 2
    shown, told = capsys.readouterr()
    (line,) = told.splitlines()
    assert line.startswith(f"loraperf: {message}")
    assert shown == ""


def test_an_adapter_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        effect(*TINY)
    assert "the following arguments are required: ADAPTER" in capsys.readouterr().err


def test_a_strategy_that_cannot_be_built_costs_the_others_nothing(
    ghost: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    asked = ["--strategies", "fused,fused_then_quantize", "--scheme", "torchao_fp8_w8a8", "--json", out]
    assert effect(ghost, *TINY, *asked) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "PASS" in line] == ["fused"]
    assert ["fused_then_quantize", "–", "–", "error", "–", "–"] in [line.split() for line in lines]
    assert "error in fused_then_quantize: quantization scheme torchao_fp8_w8a8: " in " ".join(lines)
    found = json.loads(out.read_text())["strategies"]
    assert len(found["fused"]["lora"]["gains"]) == LAYERS
    assert "CPU has no fp8 matrix product" in found["fused_then_quantize"]["error"]


USERS = """
from pytest_loraperf.backends.synthetic import build_synthetic

left = 1

def build(device):
    global left
    left -= 1
    if left < 0:
        raise MemoryError("no more")
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
"""


@pytest.mark.parametrize(("left", "code"), [(1, 1), (0, 2)])
def test_a_model_that_is_built_once_only(
    ghost: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: int,
    code: int,
) -> None:
    module = tmp_path / f"users_{left}.py"
    module.write_text(USERS.replace("left = 1", f"left = {left}"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["--device", "cpu", "--strategies", "fused,standard_lora"]
    assert effect(ghost, "--model", f"{module.stem}:build", *asked) == code
    shown, told = capsys.readouterr()
    why = f"the build function {module.stem}:build raised MemoryError: no more ({module.name}:10)"
    assert (f"error in standard_lora: {why}" in " ".join(shown.split())) == (code == 1)
    assert told == (f"loraperf: {why}\n" if code == 2 else "")


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step but fuse raise this."""
    apply = DiffSynth.apply

    def raising(backend: DiffSynth, pipeline: Any, step: Any, adapters: Any) -> Any:
        if step.kind != "fuse":
            raise error
        return apply(backend, pipeline, step, adapters)

    monkeypatch.setattr(DiffSynth, "apply", raising)


def test_what_a_library_raises_is_an_error_of_its_strategy(
    ghost: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(RuntimeError("the first line\nthe second"), monkeypatch)
    assert effect(ghost, *TINY, "--strategies", "standard_lora,fused") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "error in standard_lora: RuntimeError: the first line" in lines
    assert [line.split()[0] for line in lines if "PASS" in line] == ["fused"]


def test_a_run_that_is_broken_off_gives_what_it_has(
    ghost: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    failing(KeyboardInterrupt(), monkeypatch)
    assert effect(ghost, *TINY, "--strategies", "fused,standard_lora", "--json", out) == 130
    shown, told = capsys.readouterr()
    assert "PASS" in shown
    assert told == "loraperf: interrupted\n"
    assert len(json.loads(out.read_text())["strategies"]["fused"]["lora"]["gains"]) == LAYERS


def test_all_is_every_strategy_that_uses_a_lora() -> None:
    users = Strategy("mine", (ATTACH, COMPILE))
    without = Strategy("compiled", (COMPILE,))
    assert _using_lora(Strategies([users, without]), "all") == (*SHIPPED, users)
    assert [each.name for each in _using_lora(Strategies(), "fused,fused")] == ["fused"]
    with pytest.raises(StrategyError, match="strategy compiled uses no LoRA"):
        _using_lora(Strategies([without]), "compiled")


def test_help_names_the_default_floor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        effect("--help")
    assert f"0 to 1 (default: {MIN_GAIN:g})" in " ".join(capsys.readouterr().out.split())


GAINS: dict[str, float | None] = {
    "blocks.0.to_q": 0.99,
    "blocks.0.a_name_that_is_longer_than_a_narrow_terminal": 0.05,
    "c": 1.0,
}
MESSAGE = "wrong: 0.050 of the LoRA's intended effect is in a layer, the lowest of 3 layers"


def results_of(gains: Mapping[str, float | None]) -> Results:
    return Results(
        plugin_version="0.1.0",
        created="today",
        machine=Machine(device="cuda:0", name="a card", torch="2.15", backend="diffsynth 2"),
        model="synthetic:tiny",
        request={},
        strategies={
            "wrong": StrategyResult(
                mistake="it is one",
                adapters=("a.safetensors:0.5",),
                lora=LoraCoverage(3, 34, 16, gains=gains),
            ),
            "a_strategy_that_cannot_be_built": StrategyResult(error="no way"),
        },
        verdicts=(
            VerdictRecord(
                nodeid="effect::wrong", strategy="wrong", code="lora-effect", status="FAIL", message=MESSAGE
            ),
        ),
        notes=("adapter a.safetensors: 1 of its 4 layers fit none of the model's: x",),
    )


WIDE = """\
a.safetensors:0.5 in synthetic:tiny on a card (cuda:0), torch 2.15, diffsynth 2
strategy                         layers  rank  lowest gain  median gain  verdict
wrong ✗                            3/34    16        0.050        0.990     FAIL
a_strategy_that_cannot_be_built       –     –        error            –        –
✗ wrong is a mistake: it is one
error in a_strategy_that_cannot_be_built: no way
gain: the share of the LoRA's intended effect that is in a layer
loraperf lora-effect: wrong: 0.050 of the LoRA's intended effect is in a layer,
  the lowest of 3 layers
   0.050  blocks.0.a_name_that_is_longer_than_a_narrow_terminal
   0.990  blocks.0.to_q
   1.000  c
adapter a.safetensors: 1 of its 4 layers fit none of the model's: x
"""


def test_the_whole_report() -> None:
    assert "\n".join(effect_lines(results_of(GAINS), 80)) + "\n" == WIDE


@pytest.mark.parametrize("width", [0, 40, 60, 80, 118])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = list(effect_lines(results_of(GAINS), width))
    assert max(map(len, lines)) <= max(width, 40)
    (row,) = (line.split() for line in lines if line.startswith("wrong ✗ "))
    assert (row[-1], "0.050" in row) == ("FAIL", True)


@pytest.mark.parametrize("missing", [float("nan"), None])
def test_a_gain_that_is_no_number_is_the_lowest(missing: float | None) -> None:
    lines = list(effect_lines(results_of(GAINS | {"d": missing}), 80))
    assert "wrong ✗                            3/34    16          nan          nan     FAIL" in lines
    assert lines[9] == "     nan  d"


def test_and_in_the_results_of_a_test_run() -> None:
    match = SimpleNamespace(matched=("a", "b"), layers={}, total=2)
    arm: Any = SimpleNamespace(matches=(match,), gains={"a": 1.0, "b": float("nan"), "c": 0.5})
    found = _coverage(arm)
    assert found is not None
    assert found.gain_min != found.gain_min
