"""The parts of the recorder alone, without a library."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pytest_loraperf.order.entry_points import ENTRY_POINTS, offloads, quantizes
from pytest_loraperf.order.events import Event, Kind, Place
from pytest_loraperf.order.rules.base import Violation
from pytest_loraperf.order.runtime import weights
from pytest_loraperf.order.runtime.findings import describe, is_suppressed
from pytest_loraperf.order.runtime.histories import Histories
from pytest_loraperf.order.runtime.patches import Patches
from pytest_loraperf.order.runtime.sites import Sites
from pytest_loraperf.order.runtime.watch import ImportWatch, is_watched

ATTACH, COMPILE, DETACH, FUSE = (
    Event(kind, str(kind), Place("a.py", 1)) for kind in (Kind.ATTACH, Kind.COMPILE, Kind.DETACH, Kind.FUSE)
)


def test_every_entry_point_is_waited_for() -> None:
    assert all(is_watched(point.module.removesuffix(".*")) for point in ENTRY_POINTS)
    assert not is_watched("torch.nn.functional")


def test_a_model_its_parts_and_its_whole_share_a_history() -> None:
    histories, part, other = Histories(), torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    whole = torch.nn.Sequential(part)
    histories.add(whole, ATTACH)
    histories.add(other, COMPILE)
    histories.add(part, FUSE)
    assert histories.of(part) == histories.of(whole) == [ATTACH, FUSE]
    assert histories.of(torch.nn.Sequential(torch.nn.Sequential(whole), other)) == [ATTACH, COMPILE, FUSE]


def test_a_loop_adds_nothing() -> None:
    histories, model = Histories(), torch.nn.Linear(1, 1)
    for _ in range(3):
        histories.add(model, ATTACH)
        histories.add(model, DETACH)
    assert histories.of(model) == [ATTACH, DETACH]


def test_no_model_is_kept_alive() -> None:
    histories, model = Histories(), torch.nn.Linear(1, 1)
    histories.add(model, ATTACH)
    del model
    gc.collect()
    assert histories._records == {}


def test_loading_starts_anew() -> None:
    histories, model = Histories(), torch.nn.Linear(1, 1)
    histories.add(model, ATTACH)
    histories.start_anew(model)
    assert histories.of(model) == []


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({}, (False, False)),
        (None, (False, False)),
        ({"offload_device": "cpu", "computation_device": "cuda:1"}, (True, False)),
        ({"offload_device": "cuda", "computation_device": "cuda:1"}, (False, False)),
        ({"onload_dtype": torch.float8_e4m3fn, "computation_dtype": torch.bfloat16}, (False, True)),
    ],
)
def test_vram_config(config: Any, kinds: tuple[bool, bool]) -> None:
    assert (offloads(config), quantizes(config)) == kinds


def test_weights_of_float8_are_counted() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).to(torch.float8_e4m3fn))
    assert weights.has_quantized(model)
    assert weights.count_quantized(model) == (1, 2)
    assert weights.count_quantized(torch.nn.ReLU()) == (None, None)


def helper(sites: Sites) -> tuple[Place, Place | None]:
    return sites.here()


def test_sites_are_the_helper_and_the_test() -> None:
    sites = Sites(str(Path(__file__).parent))
    where, via = helper(sites)
    code = test_sites_are_the_helper_and_the_test.__code__
    assert via == Place("test_recorder_parts.py", code.co_firstlineno + 2)
    assert where == Place("test_recorder_parts.py", helper.__code__.co_firstlineno + 1)
    assert Path(sites.path(where)) == Path(__file__)


@pytest.mark.parametrize(
    ("comment", "suppressed"),
    [
        ("# noqa: LRP102", True),
        ("# noqa: E501, LRP102 - it stays exchangeable", True),
        ("# noqa", True),
        ("# noqa: lrp1 - as the linter reads it", True),
        ("# noqa: LRP101", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("line", [1, 2])
def test_noqa(tmp_path: Path, comment: str, suppressed: bool, line: int) -> None:
    lines = ["a()", "b()"]
    lines[line - 1] += f"  {comment}"
    (tmp_path / "app.py").write_text("\n".join(lines))
    event = Event(Kind.ATTACH, "x", Place("app.py", 1), Place("app.py", 2))
    assert is_suppressed(Violation("LRP102", "name", event, None, ""), Sites(str(tmp_path))) == suppressed


def test_a_finding_shows_both_calls(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("quantize(model)\nattach(model)\n")
    earlier = Event(Kind.QUANTIZE, "quantize", Place("app.py", 1))
    event = Event(Kind.ATTACH, "attach", Place("app.py", 2), Place("test_app.py", 7))
    found = describe(Violation("LRP102", "name", event, earlier, "too late; first this"), Sites(str(tmp_path)))
    assert found.lines == (
        "loraperf LRP102: too late; first this",
        "  here:  app.py:2: attach(model) (called from test_app.py:7)",
        "  after: app.py:1: quantize(model)",
    )


def library(name: str) -> ModuleType:
    def go() -> int:
        return 3

    class Pipe:
        def load(self) -> int:
            return 1

        @staticmethod
        def make() -> int:
            return 2

    module = ModuleType(name)
    for value in (go, Pipe):
        value.__module__ = name
        setattr(module, value.__name__, value)
    return module


def test_patches_wrap_and_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        seen.append(wrapped.__name__)
        return wrapped(*args, **kwargs)

    module, user = library("fakelib.core"), ModuleType("user_of_fakelib")
    go, load = module.go, module.Pipe.load
    user.go = go  # type: ignore[attr-defined]  # as "from fakelib.core import go"
    monkeypatch.setitem(sys.modules, "user_of_fakelib", user)
    patches = Patches(
        {("fakelib.*", name): wrapper for name in ("go", "*.load", "Pipe.make", "*.absent", "absent")}
    )
    for _ in range(2):
        patches.apply(module, late=True)
    assert (user.go(), module.Pipe().load(), module.Pipe.make()) == (3, 1, 2)
    assert seen == ["go", "load", "make"]
    patches.undo()
    assert (module.go, user.go, module.Pipe.load) == (go, go, load)
    assert isinstance(vars(module.Pipe)["make"], staticmethod)


def test_a_module_is_told_of_when_it_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    package = tmp_path / "optimum"
    package.mkdir()
    (package / "__init__.py").write_text("from optimum.inner import value\n")
    (package / "inner.py").write_text("value = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    watch = ImportWatch(lambda module: told.append((module.__name__, getattr(module, "value", 0))))
    watch.install()
    try:
        module = __import__("optimum")
    finally:
        watch.remove()
        for name in ("optimum", "optimum.inner"):
            monkeypatch.delitem(sys.modules, name)
    assert told == [("optimum.inner", 5), ("optimum", 5)]
    assert "exec_module" not in vars(module.__loader__)
    assert watch not in sys.meta_path
