"""diffusers for real, on the CPU: a tiny FLUX and a LoRA that it saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.hooks.guard import OrderGuard
from pytest_loraperf.models import parse_model

CPU = Device("cpu", "CPU")


@pytest.fixture
def pipe() -> Any:
    return Diffusers(CPU).build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=True)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two LoRAs for the same layers."""
    pipe = Diffusers(CPU).build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=True)
    pipe.transformer.add_adapter(LoraConfig(target_modules=["to_q"], init_lora_weights=False))
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.transformer))
    for name in ("a", "b"):
        pipe.save_lora_weights(tmp_path / name, state)
    return [tmp_path / name for name in ("a", "b")]


def test_casting_leaves_an_attached_adapter_out(
    pipe: Any, files: list[Path], codes: Callable[[], list[str]]
) -> None:
    pipe.load_lora_weights(files[0])
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    layer = pipe.transformer.transformer_blocks[0].attn.to_q
    assert layer.base_layer.weight.dtype is torch.float8_e4m3fn
    assert {part.weight.dtype for part in layer.lora_A.values()} == {torch.bfloat16}
    assert codes() == []


def test_a_file_that_is_fused_unloaded_and_fused_again(pipe: Any, files: list[Path], guard: OrderGuard) -> None:
    weight = pipe.transformer.transformer_blocks[0].attn.to_q.weight.detach().float()
    pipe.load_lora_weights(files[0], adapter_name="mine")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    once = pipe.transformer.transformer_blocks[0].attn.to_q.weight.detach().float() - weight
    assert len(guard.of_run) == 0
    pipe.load_lora_weights(files[0], adapter_name="mine")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    twice = pipe.transformer.transformer_blocks[0].attn.to_q.weight.detach().float() - weight
    assert float(twice.norm() / once.norm()) == pytest.approx(2, rel=0.02)
    (line,) = guard.of_run
    assert (
        "LRP108: pipe.fuse_lora fuses what is fused again, after pipe.fuse_lora (test_recorder_diffusers.py:"
        in line
    )


@pytest.mark.parametrize(("second", "found"), [(1, []), (0, ["LRP108"])])
def test_and_two_of_one_folder(
    pipe: Any, files: list[Path], codes: Callable[[], list[str]], second: int, found: list[str]
) -> None:
    folder, names = str(files[0].parent), [next(each.iterdir()).name for each in files]
    pipe.load_lora_weights(folder, subfolder=files[0].name, weight_name=names[0], adapter_name="mine")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.load_lora_weights(folder, subfolder=files[second].name, weight_name=names[second], adapter_name="mine")
    pipe.fuse_lora()
    assert codes() == found


@pytest.mark.parametrize("undone", [True, False], ids=["unfused", "another file"])
def test_and_one_that_was_unfused_or_is_another(
    pipe: Any, files: list[Path], codes: Callable[[], list[str]], *, undone: bool
) -> None:
    pipe.load_lora_weights(files[0], adapter_name="mine")
    pipe.fuse_lora()
    if undone:
        pipe.unfuse_lora()
    pipe.unload_lora_weights()
    pipe.load_lora_weights(files[0 if undone else 1], adapter_name="mine")
    pipe.fuse_lora()
    assert codes() == []
