"""What holds the tensors that a test left behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from pytest_loraperf.measure.leaks import LEVELS, Leaks
from pytest_loraperf.measure.ledger import Ledger
from pytest_loraperf.measure.memory import TensorBytes

MODELS: list[torch.nn.Module] = []
KEPT: list[torch.Tensor] = []


@pytest.fixture
def leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leaks]:
    """Only the tensors that are kept here are seen, as on a device that nothing was put on before."""
    monkeypatch.setattr(Leaks, "_tensors", lambda _: iter(KEPT))
    found = Leaks(Ledger(TensorBytes()))
    with found.ledger.meter.watching():
        yield found
    KEPT.clear()


def test_the_first_tensor_on_a_device_has_a_holder(leaks: Leaks) -> None:
    leaks.begin(closely=True)
    KEPT.append(torch.ones(2**10))
    found = leaks.end("test_keeps")
    assert (found.size, found.holders) == (4096, ((f"{__name__}.KEPT", 4096),))


def test_nothing_is_looked_for_where_there_is_no_limit(leaks: Leaks) -> None:
    leaks.begin(closely=False)
    KEPT.append(torch.ones(2**10))
    found = leaks.end("test_keeps")
    assert (found.size, found.holders) == (4096, ())


def test_the_tensors_of_a_whole_model_are_followed_at_once(leaks: Leaks, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[None] = []
    everything = gc.get_objects

    def counted() -> list[object]:
        passes.append(None)
        return everything()

    monkeypatch.setattr(gc, "get_objects", counted)
    leaks.begin(closely=True)
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(100)))
    MODELS.append(model)
    monkeypatch.setattr(Leaks, "_tensors", lambda _: iter(list(model.parameters())))
    found = leaks.end("test_keeps")
    MODELS.clear()
    assert found.holders == ((f"{__name__}.MODELS", 6400),)
    assert len(passes) <= LEVELS
