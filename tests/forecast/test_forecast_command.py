"""``loraperf forecast``: what it finds, what it says and writes, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.protocol import Choices
from pytest_loraperf.cli import main
from pytest_loraperf.forecast.card import H100
from pytest_loraperf.forecast.forecast import Forecaster
from pytest_loraperf.models import Synthetic, UserBuilt
from pytest_loraperf.report.results import read_results
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.strategies import Strategies

FEW = "standard_lora,fused_then_quantize,low_vram_optimized,quantize_then_fuse"
TINY = ["--model", "synthetic:tiny"]
MIB = 2**20


def forecast(*words: object) -> int:
    return main(["forecast", *map(str, words)])


def test_it_writes_the_phases_of_every_strategy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "deep" / "forecast.json"
    assert forecast(*TINY, "--strategy", FEW, "--json", out) == 0
    data = json.loads(out.read_text())
    assert (data["schema"], data["model"], data["machine"]["device"]) == (1, "synthetic:tiny", "forecast")
    assert ",".join(data["strategies"]) == FEW
    for found in data["strategies"].values():
        vram = found["vram"]
        assert set(vram) == {"setup_peak", "resident", "runtime_peak", "allocated_peak"}
        assert all(isinstance(size, int) for size in vram.values())
        assert H100.context < vram["resident"] <= vram["setup_peak"]
        assert 0 < vram["allocated_peak"] < max(vram["setup_peak"], vram["runtime_peak"]) - H100.context
    assert read_results(out).strategies["quantize_then_fuse"].mistake
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("synthetic:tiny on NVIDIA H100 80GB (forecast), torch ")
    assert lines[1].split() == ["strategy", "set-up", "resident", "runtime", "live", "verdict"]
    assert " ".join(line.strip() for line in lines[-2:]) == (
        "VRAM: what a card must have in each phase, allocator and CUDA context included; live: the most that tensors "
        "take. Nothing was run on a GPU."
    )


@pytest.mark.parametrize(("budget", "status"), [("723MB", 0), ("700MB", 1)])
def test_a_budget_decides(budget: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "forecast.json"
    options = ["--strategy", "fused", "--gpu-budget", budget, "--json", out]
    assert forecast(*TINY, *options) == status
    (verdict,) = json.loads(out.read_text())["verdicts"]
    assert (verdict["code"], verdict["status"]) == ("gpu-budget", "FAIL" if status else "PASS")
    said = " ".join(capsys.readouterr().out.split())
    message = (
        "loraperf gpu-budget: fused needs 722 MB of forecast VRAM (runtime), 22 MB over the budget of 700 MB; "
        "quantize, offload, or raise the budget"
    )
    assert (message in said) is bool(status)


def test_larger_images_need_more() -> None:
    forecaster = Forecaster(H100, Strategies(), Choices(), lambda _: None)
    small, large = (
        forecaster.forecast("fused", Synthetic("tiny"), (), TINY_REQUEST.with_changes(height=side, width=side))
        for side in (64, 512)
    )
    assert small.error is large.error is None
    assert large.allocated > small.allocated + MIB
    assert large.phases["setup"] == small.phases["setup"]


@pytest.mark.parametrize("name", ["standard_lora", "low_vram"])
def test_more_steps_need_no_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forecaster = Forecaster(H100, Strategies(), Choices(), lambda _: None)
    found = []
    for steps in (2, 5):
        monkeypatch.setattr("pytest_loraperf.forecast.forecast.STEPS", steps)
        found.append(forecaster.forecast(name, Synthetic("tiny"), (), TINY_REQUEST.with_changes(steps=5)))
    assert found[0].phases == found[1].phases
    assert found[0].allocated == found[1].allocated


def build(device: str) -> Any:
    from pytest_loraperf.backends.synthetic import build_synthetic

    return build_synthetic("tiny", seed=0, device="cuda:0", weights_on=device)


def build_by_values(device: str) -> Any:
    torch.rand(8, device=device).nonzero()
    return build(device)


def generate_by_values(device: str) -> Any:
    pipe = build(device)
    model_fn = pipe.model_fn

    def choosing(**inputs: Any) -> torch.Tensor:
        noise: torch.Tensor = model_fn(**inputs)
        return noise[noise > 0]

    pipe.model_fn = choosing
    return pipe


def test_a_models_own_build_function_is_forecast() -> None:
    forecaster = Forecaster(H100, Strategies(), Choices(), lambda _: None)
    mine = forecaster.forecast("fused", UserBuilt(build, "mine"), (), TINY_REQUEST)
    same = forecaster.forecast("fused", Synthetic("tiny"), (), TINY_REQUEST)
    assert mine.error is None
    assert mine.allocated == same.allocated


def use(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    module = ModuleType("models_of_mine")
    module.build = function  # type: ignore[attr-defined]  # a module made on the spot
    monkeypatch.setitem(sys.modules, "models_of_mine", module)


def test_an_unknown_operation_is_named_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, generate_by_values)
    assert forecast("--model", "models_of_mine:build", "--strategy", "fused,no_lora") == 1
    said = " ".join(capsys.readouterr().out.split())
    for name in ("fused", "no_lora"):
        assert (
            f"error in {name}: forecast: unknown operation aten.index.Tensor (DynamicOutputShapeException): its result "
            "cannot be told without values; measure this strategy on a GPU"
        ) in said


def test_a_model_that_is_built_by_values_is_no_model_for_any_strategy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, build_by_values)
    assert forecast("--model", "models_of_mine:build", "--strategy", "fused,no_lora") == 2
    assert capsys.readouterr().err.startswith(
        "loraperf: the build function models_of_mine:build raised UnknownOperationError: forecast: unknown operation "
        "aten.nonzero.default (DynamicOutputShapeException): its result cannot be told without values; "
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "fuzed"], "unknown strategy 'fuzed'; did you mean fused? The strategies are "),
        (["--gpu-budget", "14"], "--gpu-budget: size '14': write a positive number and a unit"),
        (["--model", "pretrained:Qwen/Qwen-Image"], "a forecast reads no weight files; use synthetic:full, or "),
        (["--adapter", "nowhere.safetensors"], "adapter nowhere.safetensors: cannot be read: No such file"),
        (["--height", "-1"], "request: height=-1; a positive whole number is allowed"),
        (["--json", "/dev/null/x.json"], "--json=/dev/null/x.json: cannot be written: "),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert forecast(*TINY, *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("loraperf: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_a_step_that_cannot_be_done_is_an_error_in_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert forecast(*TINY, "--strategy", "quantize_then_fuse", "--scheme", "torchao_fp8_w8a8") == 1
    assert "error in quantize_then_fuse: " in capsys.readouterr().out


def test_one_step_is_too_few_for_the_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    assert forecast(*TINY, "--strategy", "no_lora", "--steps", "1") == 1
    assert (
        "error in no_lora: request: steps=1; QwenImagePipeline's scheduler gives NaN below 2"
        in capsys.readouterr().out
    )
