"""Pretrained folders over DiffSynth 1.1: it knows a file by a hash of its keys and shapes, so tiny ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pytest_loraperf.backends.diffsynth1 import DiffSynth1
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import Synthetic

CPU = Device("cpu", "CPU")
FILES = {
    "dit": "transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny pipeline in the layout of Qwen/Qwen-Image on the hub."""
    pipe = DiffSynth1(CPU).build(Synthetic(), CPU, on_cpu=True)
    states = {path: getattr(pipe, name).state_dict() for name, path in FILES.items()}
    states["text_encoder/model.safetensors"] = {"weight": torch.zeros(2)}
    for path, state in states.items():
        (tmp_path / path).parent.mkdir()
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / path)
    (tmp_path / "tokenizer").mkdir()
    return tmp_path


def test_files_of_no_published_size_are_refused_in_one_line(pytester: pytest.Pytester, folder: Path) -> None:
    pytester.makepyfile("def test_it(fused_pipeline): fused_pipeline()")
    result = pytester.runpytest(
        "-p",
        "no:asyncio",
        "--loraperf-device=cpu",
        "--loraperf-backend=diffsynth1",
        f"--loraperf-model=pretrained:{folder}",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            f"loraperf: model '{folder}': transformer/diffusion_pytorch_model?.safetensors is of another model; "
            "a Qwen-Image model is needed"
        ]
    )
    assert "Traceback" not in result.stdout.str()
