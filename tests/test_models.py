from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_loraperf.backends import load_backend
from pytest_loraperf.errors import LoraperfError, ModelError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import Pretrained, Synthetic, UserBuilt, parse_model


def ours(device: str) -> str:
    return device


class Builder:
    def __call__(self, device: str) -> str:
        return device


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("synthetic:tiny", "synthetic:tiny"),
        ("synthetic:full", "synthetic:full"),
        ("synthetic:qwen-image:full", "synthetic:full"),
        ("synthetic:flux:tiny", "synthetic:flux:tiny"),
        ("synthetic:z-image:full", "synthetic:z-image:full"),
        ("pretrained:Qwen/Qwen-Image", "pretrained:Qwen/Qwen-Image"),
        ("json:loads", "json:loads"),
        (ours, "ours"),
        (Builder(), "Builder"),
        (Synthetic("tiny", seed=3), "synthetic:tiny"),
    ],
)
def test_what_names_a_model(value: object, shown: str) -> None:
    assert str(parse_model(value)) == shown


def test_a_folder_is_pretrained_too(tmp_path: Path) -> None:
    model = parse_model(f"pretrained:{tmp_path}")
    assert isinstance(model, Pretrained)
    assert model.folder == tmp_path


def test_a_function_by_its_import_path_is_that_function() -> None:
    model = parse_model("json:loads")
    assert isinstance(model, UserBuilt)
    assert model.build("[1]") == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "model: got 3; allowed are synthetic:tiny, .* or package.module:function, or a build function"),
        ("tiny", "model: got 'tiny'; allowed are synthetic:tiny"),
        ("synthetic:", "model: got 'synthetic:'; synthetic models are synthetic:tiny and synthetic:full"),
        ("synthetic:flux", "'synthetic:flux'.* synthetic:PIPELINE:SIZE .* qwen-image, flux, wan, z-image"),
        ("synthetic:sdxl:tiny", "'synthetic:sdxl:tiny'.* a pipeline of qwen-image, flux, wan, z-image"),
        ("pretrained:x", "model: 'pretrained:x' is neither a folder here nor a hub id such as Qwen/Qwen-Image"),
        (
            "json:lods",
            "model: 'json:lods' cannot be imported: AttributeError: module 'json' has no attribute 'lods'",
        ),
        ("json:__doc__", "model: 'json:__doc__' is str, not a function that builds a pipeline"),
    ],
)
def test_what_names_none(value: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_model(value)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_loraperf.backends.diffsynth", None)
    with pytest.raises(
        LoraperfError,
        match=r"the backend diffsynth cannot be imported \(.*\); pip install 'pytest-loraperf\[diffsynth\]'",
    ):
        load_backend(Device("cpu", "CPU"))
