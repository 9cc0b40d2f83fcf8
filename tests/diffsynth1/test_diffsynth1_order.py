"""The order recorder beside the real DiffSynth 1.1, called as the guide to LoRA speed calls it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffsynth.lora import GeneralLoRALoader
from diffsynth.pipelines.qwen_image import QwenImagePipeline

from pytest_loraperf.backends.synthetic1 import build_synthetic
from pytest_loraperf.hooks.guard import OrderGuard
from pytest_loraperf.lora import weight_norms, write_synthetic_adapter

LAYER = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def guard() -> Iterator[OrderGuard]:
    found = OrderGuard("error", Path(__file__).parent, note=print)
    found.start()
    yield found
    found.close()
    assert found.troubles == {}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    # 1.1 asks for the size of the card, which is not there; nothing is generated here.
    monkeypatch.setattr(QwenImagePipeline, "get_vram", lambda _: 80.0)
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")


@pytest.fixture
def lora(pipe: Any, tmp_path: Path) -> str:
    return str(write_synthetic_adapter(tmp_path / "a.safetensors", weight_norms(pipe.dit, [LAYER]), rank=2))


def codes(guard: OrderGuard) -> list[str]:
    return [line.split()[1].rstrip(":") for line in guard.of_run]


def test_slow_on_a_dit_loaded_as_bf16(pipe: Any, lora: str, guard: OrderGuard) -> None:
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    pipe.load_lora(pipe.dit, lora)
    assert codes(guard) == ["LRP103", "LRP106"]
    assert "pipe.enable_vram_management quantized none of 34 layers" in "".join(guard.of_run)


def test_slow_on_a_dit_loaded_as_fp8(pipe: Any, lora: str, guard: OrderGuard) -> None:
    pipe.dit.to(torch.float8_e4m3fn)
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    pipe.load_lora(pipe.dit, lora)
    assert codes(guard) == ["LRP101", "LRP106"]


def test_slow_and_hot_loaded(pipe: Any, lora: str, guard: OrderGuard) -> None:
    pipe.dit.to(torch.float8_e4m3fn)
    pipe.enable_lora_magic()
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    pipe.load_lora(pipe.dit, lora, hotload=True)
    assert codes(guard) == ["LRP102"]


def test_fused_before_it_is_cast(pipe: Any, lora: str, guard: OrderGuard) -> None:
    pipe.load_lora(pipe.dit, lora)
    pipe.dit.to(torch.float8_e4m3fn)
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    assert codes(guard) == []


def test_fast_and_fastest_on_a_dit_loaded_as_bf16(pipe: Any, lora: str, guard: OrderGuard) -> None:
    from safetensors.torch import load_file

    GeneralLoRALoader(torch_dtype=torch.bfloat16, device="cpu").load(pipe.dit, load_file(lora), alpha=1.0)
    pipe.enable_vram_management(enable_dit_fp8_computation=True)
    assert codes(guard) == ["LRP103"]


def test_what_the_backend_does_is_declared(guard: OrderGuard) -> None:
    from pytest_loraperf.options import Settings
    from pytest_loraperf.session import Session

    session = Session(Settings(backend="diffsynth1", model="synthetic:tiny", device="cpu"))
    session.bench().arm("quantize_then_fuse")
    session.close()
    assert codes(guard) == []
