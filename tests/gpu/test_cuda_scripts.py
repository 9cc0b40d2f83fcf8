"""On a CUDA device: the seed's scripts at full size, each on the card that it is for, played by this machine's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from pytest_loraperf.session import FULL_MODEL_NEEDS
from pytest_loraperf.units import parse_size

FOLDER = Path(__file__).parents[2] / "examples/qwen_image/model_inference"
HEADROOM = 2**30
"""Bytes of this machine's card that the small one and what plays it take together."""
PLAYER = """
import runpy, sys
import torch
from pytest_loraperf.gpu.cap import Cap
from pytest_loraperf.gpu.device import resolve_device
from pytest_loraperf.measure.memory import CudaMeter
from pytest_loraperf.units import parse_size

card, script, *sys.argv[1:] = sys.argv[1:]
device = resolve_device("auto")
cap = Cap(device, parse_size(card), CudaMeter(device).overhead)
torch.zeros(1, device=device.torch_name)
cap.enter()
sys.argv[0] = script
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
print("peak", torch.cuda.max_memory_reserved() + cap.outside())
"""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def generate(script: str, card: str, folder: Path, *arguments: str) -> int:
    """Run a script on a card of this size, and return the bytes that it took."""
    path = FOLDER / f"Qwen-Image-Edit-LoRA-Ghost-{script}.py"
    given = ["--synthetic", "full", "--output", "out.png", *arguments]
    command = [sys.executable, "-c", PLAYER, card, str(path), *given]
    imports = os.pathsep.join(filter(None, (str(FOLDER.parents[2]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": imports, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with Image.open(folder / "out.png") as image:
        assert image.size == (1024, 1024)
    (peak,) = re.findall(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    return int(peak)


@pytest.mark.parametrize(
    ("script", "card"),
    [("LowVRAM", "8GB"), ("LowVRAM-Optimized", "6GB"), ("LowVRAM-Optimized", "2GB")],
)
def test_on_a_small_card(script: str, card: str, tmp_path: Path) -> None:
    if torch.cuda.get_device_properties(0).total_memory < parse_size(card) + HEADROOM:
        pytest.skip(f"a card of {card} is played by a larger one")
    assert generate(script, card, tmp_path, "--vram", card) <= parse_size(card)


@pytest.mark.parametrize("script", ["Quantized", "Quantized-Optimized"])
def test_on_a_card_that_holds_the_model(script: str, tmp_path: Path) -> None:
    if torch.cuda.get_device_properties(0).total_memory < FULL_MODEL_NEEDS + HEADROOM:
        pytest.skip("the full model does not fit in bf16")
    assert generate(script, "44GB", tmp_path) <= FULL_MODEL_NEEDS
