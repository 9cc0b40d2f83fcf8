"""What the tests build: our own code, on random weights that stand for Qwen-Image's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ghostly.painter import Painter
from ghostly.pipeline import PREFIX, Load, open_base
from safetensors.torch import save_file

from pytest_loraperf import Request, build_synthetic


@pytest.fixture(scope="session")
def device() -> str:
    """Use the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def forecast(pytestconfig: pytest.Config) -> bool:
    """Whether nothing is run, and the memory of the full size is forecast."""
    return bool(pytestconfig.getoption("--loraperf-forecast"))


@pytest.fixture(scope="session")
def load(forecast: bool, device: str) -> Load:
    """Build the full size for a GPU, a tiny one elsewhere; nothing is downloaded."""
    if forecast or device == "cuda":
        return lambda device: build_synthetic("full", device="cuda", weights_on=device)
    return lambda device: build_synthetic("tiny", device=device)


@pytest.fixture(scope="session")
def lora_model(load: Load) -> object:
    """Let the plugin put its strategies on our own base."""

    def base(device: str) -> Any:
        return open_base(load, device)

    return base


@pytest.fixture(scope="session")
def lora_adapter(request: pytest.FixtureRequest, forecast: bool) -> Path | tuple[Path, ...]:
    """Let its strategies use our LoRA; a forecast reads no weights, and takes its own."""
    return () if forecast else request.getfixturevalue("lora")


@pytest.fixture(scope="session")
def size(forecast: bool, device: str) -> int:
    """Pixels a side: what is painted, or where the model is tiny, little."""
    return 1024 if forecast or device == "cuda" else 64


@pytest.fixture(scope="session")
def lora_request(size: int) -> Request:
    """Let them paint what we paint."""
    return Request(prompt="a ghost in a library", height=size, width=size, steps=Painter.steps)


@pytest.fixture(scope="session")
def lora(load: Load, device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a weak LoRA of rank 4 for the MLPs, as our trainer does."""
    seeded = torch.Generator().manual_seed(0)
    tensors = {}
    for name, layer in load(device=device).dit.named_modules():
        if isinstance(layer, torch.nn.Linear) and "_mlp." in name:
            down = torch.randn(4, layer.in_features, generator=seeded)
            up = torch.randn(layer.out_features, 4, generator=seeded)
            strength = 0.02 * layer.weight.float().norm().cpu() / (up @ down).norm()
            tensors[f"{PREFIX}{name}.lora_A.default.weight"] = down
            tensors[f"{PREFIX}{name}.lora_B.default.weight"] = up * strength
    path = tmp_path_factory.mktemp("lora") / "ghost.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def painter(lora: Path, load: Load, device: str) -> Painter:
    """Build what the application builds."""
    return Painter(lora, load, device)
