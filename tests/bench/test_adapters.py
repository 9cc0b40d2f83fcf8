"""The adapters of a bench: read once, made where none is named, and charged to no arm."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_loraperf.errors import ModelError
from pytest_loraperf.options import Settings
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session

NAMES = ("standard_lora", "fused_then_quantize")


def needs(names: tuple[str, ...]) -> dict[str, tuple[int, int, int]]:
    """Build these in their order, and return what each needs: set-up, resident, runtime."""
    session = Session(Settings(device="cpu", model="synthetic:tiny"))
    try:
        bench = session.bench()
        for name in names:
            bench.generate(name, Request(height=64, width=64, steps=2))
        found = {
            name: (arm.setup_peak.needed, arm.resident, arm.runtime_peak.needed)
            for name, arm in bench.arms.items()
        }
    finally:
        session.close()
    return found


def test_what_an_arm_needs_does_not_depend_on_which_was_first() -> None:
    found = needs(NAMES)
    assert set(found) == set(NAMES)
    assert found == needs(NAMES[::-1])


def test_a_synthetic_adapter_is_made_once_and_its_file_removed() -> None:
    session = Session(Settings(device="cpu", model="synthetic:tiny"))
    bench = session.bench()
    first, second = (bench.arm(name).matches for name in NAMES)
    assert first[0].adapter is second[0].adapter
    path = first[0].adapter.source.path
    assert path.is_file()
    assert bench.adapters.named == ()
    session.close()
    assert not path.exists()


def test_a_pipeline_without_a_dit_needs_a_file() -> None:
    session = Session(Settings(device="cpu", model="synthetic:tiny"))
    adapters = session.bench().adapters
    with pytest.raises(
        ModelError, match="synthetic:tiny: no adapter was given, and there is no dit to make one for"
    ):
        adapters.synthetic(SimpleNamespace())
    session.close()


def test_adapters_are_said_with_their_folder_unless_that_is_a_temporary_one(tmp_path: Path) -> None:
    session = Session(Settings(device="cpu", model="synthetic:tiny"))
    named = ["a.safetensors", "/models/checkpoint-1000/lora.safetensors:0.8", f"{tmp_path}/b.safetensors"]
    assert session.bench(adapters=named).adapters.labels == (
        "a.safetensors:1",
        "checkpoint-1000/lora.safetensors:0.8",
        "b.safetensors:1",
    )
    session.close()
