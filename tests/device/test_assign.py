"""Which GPU a worker sees."""

from __future__ import annotations

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.assign import VISIBLE, assign_gpu, is_shared, read_gpus


@pytest.mark.parametrize(
    ("text", "gpus"), [("auto", ("auto",)), ("0,1", ("0", "1")), (" GPU-1a-2b , 3 ", ("GPU-1a-2b", "3"))]
)
def test_what_is_read(text: str, gpus: tuple[str, ...]) -> None:
    assert read_gpus(text) == gpus


@pytest.mark.parametrize("text", ["", "auto,1", "one", "0,,1", "0;1", "-1"])
def test_what_is_not_understood(text: str) -> None:
    message = rf"^got {text!r}; allowed are auto, or numbers or UUIDs of GPUs such as 0,1$"
    with pytest.raises(LoraperfError, match=message):
        read_gpus(text)


@pytest.mark.parametrize(
    ("worker", "gpus", "named", "there", "sees"),
    [
        ("gw0", ("auto",), None, 2, "0"),
        ("gw3", ("auto",), None, 2, "1"),
        ("gw3", ("auto",), "4,GPU-5,6", 8, "4"),
        ("gw1", ("auto",), "4,GPU-5,6", 8, "GPU-5"),
        ("gw1", ("auto",), "", 8, ""),  # all are hidden, and stay so
        ("gw1", ("auto",), None, 0, None),
        ("gw2", ("2", "7"), None, 0, "2"),
        ("gw1", ("2", "7"), "0", 0, "7"),
        ("master", ("2", "7"), None, 0, None),
    ],
)
def test_workers_take_turns(
    worker: str, gpus: tuple[str, ...], named: str | None, there: int, sees: str | None
) -> None:
    environ = {} if named is None else {VISIBLE: named}
    found = assign_gpu(worker, gpus, environ, lambda: there)
    assert environ.get(VISIBLE) == sees
    assert sees in (None, "", *found)


@pytest.mark.parametrize(
    ("worker", "workers", "gpus", "shared"),
    [
        ("gw0", 2, ("0", "1"), False),
        ("gw0", 3, ("0", "1"), True),
        ("gw1", 3, ("0", "1"), False),
        ("gw2", 3, ("0", "1"), True),
        ("gw0", 1, ("0",), False),
        ("gw0", 2, ("0",), True),
        ("gw0", 2, ("0", "0"), True),  # named twice
        ("gw2", 2, ("0", "1"), True),  # the one that takes the place of gw1, which crashed
        ("gw0", 2, (), False),
        ("master", 2, ("0",), False),
    ],
)
def test_who_shares_a_gpu(worker: str, workers: int, gpus: tuple[str, ...], shared: bool) -> None:
    assert is_shared(worker, workers, gpus) is shared
