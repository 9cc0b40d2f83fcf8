"""What holds the tensors that a test left behind."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import pytest
import torch

from pytest_loraperf.measure.leaks import LEVELS, Leaks, holders_of
from pytest_loraperf.measure.ledger import Ledger
from pytest_loraperf.measure.memory import TensorBytes

MODELS: list[torch.nn.Module] = []
KEPT: list[torch.Tensor] = []


def see(monkeypatch: pytest.MonkeyPatch, tensors: Callable[[], Iterable[torch.Tensor]]) -> None:
    monkeypatch.setattr(Leaks, "_tensors", lambda _: ((each, each.untyped_storage()) for each in tensors()))


@pytest.fixture
def leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leaks]:
    """Only the tensors that are kept here are seen, as on a device that nothing was put on before."""
    see(monkeypatch, lambda: KEPT)
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
    see(monkeypatch, model.parameters)
    found = leaks.end("test_keeps")
    MODELS.clear()
    assert found.holders == ((f"{__name__}.MODELS", 6400),)
    assert len(passes) <= LEVELS


def test_tensors_at_the_addresses_of_some_that_were_freed_are_others(leaks: Leaks) -> None:
    KEPT.extend(torch.ones(2**10) for _ in range(100))
    leaks.begin(closely=True)
    KEPT.clear()
    KEPT.extend(torch.ones(2**11) for _ in range(100))
    assert leaks.end("test_keeps").holders == ((f"{__name__}.KEPT", 100 * 8192),)


def test_a_view_names_what_holds_its_base(leaks: Leaks, monkeypatch: pytest.MonkeyPatch) -> None:
    leaks.begin(closely=True)
    KEPT.append(torch.ones(2**10)[:4])
    see(monkeypatch, lambda: [each for each in (KEPT[0]._base, KEPT[0]) if each is not None])
    assert leaks.end("test_keeps").holders == ((f"{__name__}.KEPT", 4096),)


def test_a_holder_at_the_address_of_one_that_is_gone_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    value, module = torch.ones(1), ModuleType("successors")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    gone: list[int] = []

    def look() -> list[object]:
        """Show lists that hold the value and are gone afterwards, then lists of a module at their addresses."""
        if not gone:
            holders: list[object] = [[value] for _ in range(10)]
            gone.extend(map(id, holders))
            return holders
        vars(module).update((f"list_{index}", []) for index in range(100))
        return [vars(module)]

    monkeypatch.setattr(gc, "get_objects", look)
    assert holders_of([value]) == ["a list"]
