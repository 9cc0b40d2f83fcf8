"""DiffSynth 2.x on its tiny synthetic pipeline, called as a user would."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffsynth.core.vram.layers import AutoWrappedLinear, enable_vram_management
from diffsynth.utils.lora import GeneralLoRALoader
from safetensors.torch import save_file

from pytest_loraperf.backends.streaming import pipeline
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.hooks.guard import OrderGuard
from pytest_loraperf.order.runtime.declared import declared

FP8 = torch.float8_e4m3fn
LAYER = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def pipe() -> Any:
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")


def state(*layers: str, width: int = 64) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.lora_{side}.default.weight": torch.zeros(shape)
        for layer in layers
        for side, shape in (("A", (2, width)), ("B", (width, 2)))
    }


def loader() -> Any:
    return GeneralLoRALoader(device="cpu", torch_dtype=torch.bfloat16)


def to_fp8(pipe: Any) -> None:
    places = ("offload", "onload", "preparing")
    config = {f"{place}_dtype": FP8 for place in places} | {f"{place}_device": "cpu" for place in places}
    config |= {"computation_dtype": torch.bfloat16, "computation_device": "cpu"}
    enable_vram_management(pipe.dit, {torch.nn.Linear: AutoWrappedLinear}, vram_config=config)


def test_fuse_then_quantize_is_clean(pipe: Any, codes: Callable[[], list[str]]) -> None:
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    to_fp8(pipe)
    assert codes() == []


def test_load_lora_fuses_a_plain_model(pipe: Any, guard: OrderGuard, codes: Callable[[], list[str]]) -> None:
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == []
    assert guard.recorder is not None
    (event,) = guard.recorder.histories.of(pipe.dit)
    assert (event.kind, event.layers, event.total) == ("fuse", 1, 1)
    assert (event.where.path, event.via) == ("test_recorder_diffsynth.py", None)


def test_load_lora_attaches_to_a_managed_model(pipe: Any, codes: Callable[[], list[str]]) -> None:
    to_fp8(pipe)
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == ["LRP102"]


def test_fuse_into_fp8(pipe: Any, codes: Callable[[], list[str]]) -> None:
    to_fp8(pipe)
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    assert codes() == ["LRP101"]


def test_a_cast_that_nobody_saw(pipe: Any, guard: OrderGuard) -> None:
    pipe.dit.to(FP8)
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    (line,) = guard.of_run
    assert line.startswith(
        "loraperf LRP101: loader.fuse_lora_to_base_model fuses a LoRA into weights that earlier"
    )


def test_what_matched_no_layer_is_not_there(pipe: Any, codes: Callable[[], list[str]]) -> None:
    lora = state(f"transformer.{LAYER}")
    for _ in range(2):
        loader().fuse_lora_to_base_model(pipe.dit, lora)
    assert codes() == ["LRP104"]  # twice the same, and no LRP108


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((LAYER,), []),
        ((f"transformer.{LAYER}",), ["LRP104"]),
        ((LAYER, "elsewhere.0"), ["LRP104"]),
        ((), ["LRP104"]),
    ],
)
@pytest.mark.parametrize("hotload", [False, True])
def test_layers_are_counted(
    pipe: Any, codes: Callable[[], list[str]], hotload: bool, layers: tuple[str, ...], expected: list[str]
) -> None:
    if hotload:
        pipe.enable_lora_hot_loading(pipe.dit)
    pipe.load_lora(pipe.dit, state_dict=state(*layers))
    assert codes() == expected


def test_the_same_adapter_twice(pipe: Any, tmp_path: Path, codes: Callable[[], list[str]]) -> None:
    file, lora = tmp_path / "a.safetensors", state(LAYER)
    save_file(lora, file)
    pipe.load_lora(pipe.dit, str(file))
    loader().fuse_lora_to_base_model(pipe.dit, lora)
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    assert codes() == []
    pipe.load_lora(pipe.dit, str(file))
    loader().fuse_lora_to_base_model(pipe.dit, lora)
    assert codes() == ["LRP108", "LRP108"]


def test_a_negative_strength_takes_it_away_again(pipe: Any, codes: Callable[[], list[str]]) -> None:
    lora = state(LAYER)
    for alpha in (1.0, -1.0, 1.0):
        loader().fuse_lora_to_base_model(pipe.dit, lora, alpha=alpha)
    assert codes() == []


def test_lora_after_compile(pipe: Any, codes: Callable[[], list[str]]) -> None:
    pipe.compile_pipeline()
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == ["LRP105"]


def test_one_block_compiled_by_hand(pipe: Any, codes: Callable[[], list[str]]) -> None:
    pipe.dit.transformer_blocks[0].compile()
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == ["LRP105"]


def test_a_new_model_starts_anew(pipe: Any, guard: OrderGuard, codes: Callable[[], list[str]]) -> None:
    pipe.compile_pipeline()
    old = id(pipe.dit)
    assert guard.recorder is not None
    assert old in guard.recorder.histories._records
    pipe.dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    gc.collect()
    assert old not in guard.recorder.histories._records
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == []


def test_a_declared_order_is_not_recorded(pipe: Any, codes: Callable[[], list[str]]) -> None:
    with declared():
        to_fp8(pipe)
        pipe.load_lora(pipe.dit, state_dict=state(LAYER))
    assert codes() == []
    pipe.load_lora(pipe.dit, state_dict=state(LAYER))  # the user's own, on what was built
    assert codes() == ["LRP102"]


def test_what_raises_is_raised(pipe: Any, codes: Callable[[], list[str]]) -> None:
    with pytest.raises(ValueError, match="VRAM Management is not enabled"):
        pipe.load_lora(pipe.dit, state_dict=state(LAYER), hotload=True)
    assert codes() == []


def test_fuse_after_streaming(pipe: Any, codes: Callable[[], list[str]]) -> None:
    pipeline.stream_blocks(pipe, 2**30)
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    assert codes() == ["LRP106"]


def test_fuse_then_stream_is_clean(pipe: Any, codes: Callable[[], list[str]]) -> None:
    loader().fuse_lora_to_base_model(pipe.dit, state(LAYER))
    pipeline.stream_blocks(pipe, 2**30)
    assert codes() == []
