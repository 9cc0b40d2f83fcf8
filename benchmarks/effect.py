"""The README's run of ``loraperf effect``, on a weak adapter for the tiny model: ``python benchmarks/effect.py``.

The adapter is seeded, so that the same torch gives the same gains; they go to ``benchmarks/cpu/effect.json``.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.cli import main
from pytest_loraperf.commands.exits import FINDING
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter

OUT = Path(__file__).parent / "cpu" / "effect.json"
COMMAND = (
    "effect ghost.safetensors:0.08 --model synthetic:tiny --device cpu "
    "--strategies fused,fused_then_quantize,quantize_then_fuse --json effect.json"
)


def write_ghost(path: Path) -> None:
    """Write a LoRA of 7 % of the weights of the modulations and MLPs, the largest layers."""
    dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    names = [name for name in linear_shapes(dit) if "_mlp." in name or "_mod." in name]
    write_synthetic_adapter(path, weight_norms(dit, names))


def run() -> int:
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_ghost(Path("ghost.safetensors"))
        status = main(COMMAND.split())
        if status == FINDING:  # the wrong order loses it: that is what the README shows
            shutil.copyfile("effect.json", OUT)
    return 0 if status == FINDING else 1


if __name__ == "__main__":
    sys.exit(run())
