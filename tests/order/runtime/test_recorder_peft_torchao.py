"""peft, torchao and torch.compile for real, on the CPU."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from pytest_loraperf.hooks.guard import OrderGuard

pytestmark = pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated")
CONFIG = LoraConfig(target_modules=["0"])
INT8 = Int8WeightOnlyConfig(version=2)


@pytest.fixture
def model() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 16))


def test_quantize_over_attached(model: Any, codes: Callable[[], list[str]]) -> None:
    get_peft_model(model, CONFIG)
    quantize_(model, INT8)
    assert codes() == ["LRP107"]


def test_filter_leaves_the_adapter_out(model: Any, codes: Callable[[], list[str]]) -> None:
    wrapped = get_peft_model(model, CONFIG)
    quantize_(wrapped, INT8, filter_fn=lambda _, name: name.endswith("base_layer"))
    assert codes() == []


def test_attach_after_quantize(model: Any, guard: OrderGuard) -> None:
    quantize_(model, INT8)
    get_peft_model(model, CONFIG)
    (line,) = guard.of_run
    assert "LRP102: get_peft_model attaches a LoRA to a model that quantize_ quantized (test_recorder_" in line
    assert line.endswith(": quantize_(model, INT8)")


def test_merge_then_quantize_then_compile(model: Any, codes: Callable[[], list[str]]) -> None:
    merged = get_peft_model(model, CONFIG).merge_and_unload()
    quantize_(merged, INT8)
    torch.compile(merged)
    assert codes() == []


def test_merged_twice(model: Any, codes: Callable[[], list[str]]) -> None:
    adapted: Any = get_peft_model(model, CONFIG)
    adapted.merge_adapter()
    adapted.unmerge_adapter()
    adapted.merge_adapter()
    assert codes() == []
    with pytest.warns(UserWarning, match="already merged"):
        adapted.merge_adapter()
    assert codes() == ["LRP108"]


def test_quantized_nothing(model: Any, codes: Callable[[], list[str]]) -> None:
    quantize_(model, INT8, filter_fn=lambda *_: False)
    assert codes() == ["LRP103"]


def test_compiled_shell_is_the_same_model(model: Any, codes: Callable[[], list[str]]) -> None:
    compiled: Any = torch.compile(model)
    get_peft_model(compiled, CONFIG)
    assert codes() == ["LRP105"]


def test_compile_as_a_decorator(codes: Callable[[], list[str]]) -> None:
    @torch.compile(backend="eager")
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert double(torch.ones(2)).tolist() == [2, 2]
    assert codes() == []


def test_modules_are_what_they_were(model: Any, guard: OrderGuard) -> None:
    assert guard.recorder is not None
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))  # noqa: S301 - what this test has dumped
    twin.compile(backend="eager")
    assert torch.equal(twin(torch.ones(1, 16)), model(torch.ones(1, 16)))


def test_closing_puts_everything_back() -> None:
    import torchao.quantization.quant_api as home

    before = home.quantize_, torch.compile, vars(torch.nn.Module)["compile"], quantize_
    mine = OrderGuard("error", Path(), note=print)
    mine.start()
    assert home.quantize_ is not before[0]
    assert quantize_ is home.quantize_  # the name that this test imported is wrapped too
    mine.close()
    assert (home.quantize_, torch.compile, vars(torch.nn.Module)["compile"], quantize_) == before
