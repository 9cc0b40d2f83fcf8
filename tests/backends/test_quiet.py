"""What libraries print and warn of, in a suite where a warning is an error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import UserBuilt
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import FUSE

CPU = Device("cpu", "CPU")


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", device="cpu"))
    yield session
    session.close()


def test_prints_and_warnings_of_a_step_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("error")
        with quiet():
            print("840 tensors are fused by LoRA")  # noqa: T201 - as DiffSynth does
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    assert seen == []
    assert capsys.readouterr().out == ""


def test_what_torch_logs_is_dropped_but_for_errors(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("torch.utils._pytree")
    with quiet():
        log.warning("deprecated")
        log.error("out of memory")
    log.warning("said outside")
    assert caplog.messages == ["out of memory", "said outside"]


def test_a_warning_while_building_is_no_error() -> None:
    def build(device: str) -> Any:
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        return build_synthetic("tiny", device=device)

    pipe = DiffSynth(CPU).build(UserBuilt(build, "build"), CPU, on_cpu=False)
    assert isinstance(pipe.dit, torch.nn.Module)


def test_what_diffsynth_calls_the_old_way_is_not_told_at_every_generation(session: Session) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        session.bench().generate("fused", session.request())
    assert [str(warning.message) for warning in seen if issubclass(warning.category, FutureWarning)] == []


def test_a_warning_while_generating_is_shown_and_no_error(session: Session) -> None:
    bench = session.bench()
    pipe = bench.arm("fused").pipeline
    decode = pipe.vae.decode

    def warning(*args: Any, **kwargs: Any) -> Any:
        warnings.warn("TensorFloat32 is available but not enabled", UserWarning, stacklevel=1)
        return decode(*args, **kwargs)

    pipe.vae.decode = warning
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("error")
        bench.run("fused", session.request())
    assert "TensorFloat32 is available but not enabled" in [str(warning.message) for warning in seen]
    assert bench.arm("fused").recipe.strategy.steps == (FUSE,)
