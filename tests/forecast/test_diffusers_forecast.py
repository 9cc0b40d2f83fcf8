"""A forecast of diffusers' pipelines: every strategy, without values and without a GPU."""

from __future__ import annotations

import pytest

from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import Strategies


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(
        Settings(model="synthetic:tiny", device="cpu", backend="diffusers", forecast=True), Strategies()
    )


@pytest.mark.parametrize("name", ["standard_lora", "fused_then_quantize", "low_vram", "low_vram_optimized"])
def test_each_phase_is_foreseen(session: Session, name: str) -> None:
    found = session.forecast(name, session.model(), (), session.request())
    assert found.error is None
    assert all(found.phases[phase] > 0 for phase in ("setup", "resident", "runtime"))


def test_a_lora_is_merged_on_the_card_where_the_weights_are_in_host_memory() -> None:
    session = Session(
        Settings(model="synthetic:full", device="cpu", backend="diffusers", forecast=True), Strategies()
    )
    found = session.forecast("low_vram_optimized", session.model(), (), session.request())
    peaks = {record.name: record.peak for record in found.setup}
    largest = 4 * 3072 * 3072 * 2  # of a block's feed-forward layer, in bf16: it, its delta and their sum
    assert peaks["fuse"] - peaks["quantize[fp8_storage]"] >= 3 * largest
