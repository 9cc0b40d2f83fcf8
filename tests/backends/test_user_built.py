"""What a user's build function returns or raises by mistake: one clear line, and nothing is judged in its place."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_loraperf import build_synthetic
from pytest_loraperf.backends.user_built import build_users
from pytest_loraperf.cli import main
from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import UserBuilt


def built(function: Callable[..., Any]) -> Any:
    return build_users(UserBuilt(function, "mine:build"), "cpu", "cpu")


@functools.cache
def cached(device: str) -> Any:
    return build_synthetic("tiny", device=device, weights_on=device)


def test_a_pipeline_that_was_returned_before_is_refused() -> None:
    cached.cache_clear()
    assert built(cached) is cached(device="cpu")
    message = (
        r"the build function mine:build returned a pipeline, or its denoiser, that it had returned before; steps have "
        r"changed it since, so build a new one in each call, without a cache"
    )
    with pytest.raises(ModelError, match=message):
        built(cached)


def test_so_is_a_denoiser_in_a_new_pipeline() -> None:
    denoiser = build_synthetic("tiny", device="cpu", weights_on="cpu").dit

    def build(device: str) -> Any:
        pipe = build_synthetic("tiny", device=device, weights_on=device)
        pipe.dit = denoiser
        return pipe

    built(build)
    with pytest.raises(ModelError, match="had returned before"):
        built(build)


def exits(*, device: str) -> Any:
    sys.exit(int(device != "cpu"))


def looks_up(device: str) -> Any:
    return {"cuda": 0}[device]


def test_what_it_raises_is_told_with_its_line_and_never_ends_the_run() -> None:
    with pytest.raises(ModelError, match=r"mine:build raised SystemExit: 0 \(test_user_built\.py:\d+\)"):
        built(exits)
    with pytest.raises(ModelError, match=r"mine:build raised KeyError: 'cpu' \(test_user_built\.py:\d+\)"):
        built(looks_up)


def changed(change: Callable[[Any], object]) -> Callable[..., Any]:
    def build(device: str) -> Any:
        pipe = build_synthetic("tiny", device=device, weights_on=device)
        change(pipe)
        return pipe

    return build


def test_a_denoiser_that_is_not_there_or_has_no_values() -> None:
    with pytest.raises(
        ModelError, match="returned QwenImagePipeline whose dit is None; a DiffSynth pipeline with a"
    ):
        built(changed(lambda pipe: setattr(pipe, "dit", None)))
    with pytest.raises(ModelError, match="returned a dit without values, on the device meta; load its weights"):
        built(changed(lambda pipe: pipe.dit.to("meta")))


BROKEN = """
import torch
from pytest_loraperf import build_synthetic

def build(device):
    pipe = build_synthetic("tiny", device="cpu", weights_on=device)
    with torch.no_grad():
        next(pipe.dit.proj_out.parameters()).fill_(float("nan"))
    return pipe
"""


def test_an_output_that_is_not_finite_is_an_error_of_the_reference_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_weights.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    with torch.random.fork_rng():
        assert main(["bench", "--device=cpu", "--model=broken_weights:build", "--strategies=standard_lora"]) == 1
    assert "standard_lora: the output holds values that are NaN or infinite: look for an overflow" in " ".join(
        capsys.readouterr().out.split()
    )
