"""Gates on callables, some to pass and some to fail: what ``workers.py`` runs in one process and in several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE = 8192 if DEVICE == "cuda" else 128
CALLS = 10
Register = Callable[..., object]


def multiply(name: str, times: int, log: Path | None) -> None:
    """Multiply matrices so many times, and log when that began and ended, by the host's monotonic clock."""
    began = time.monotonic()
    matrix = torch.ones(SIZE, SIZE, device=DEVICE, dtype=torch.bfloat16)
    for _ in range(times):
        matrix = matrix @ matrix
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{name} {began!r} {time.monotonic()!r}\n")


@pytest.fixture
def work(gpu_workload: Register, request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Register a workload of a name and so many times the work of another."""
    folder = os.environ.get("LORAPERF_CALLS")
    log = Path(folder) / f"{request.node.name}.{os.getpid()}" if folder else None

    def register(name: str, share: float) -> None:
        gpu_workload(partial(multiply, name, round(CALLS * share), log), name=name)

    return register


@pytest.mark.parametrize("number", range(2))
@pytest.mark.faster_than("twice", by="20%")
def test_half_the_work_is_faster(work: Callable[[str, float], None], number: int) -> None:  # noqa: ARG001 - a case
    work("once", 1)
    work("twice", 2)


@pytest.mark.parametrize("number", range(2))
@pytest.mark.faster_than("once", by="0%")
def test_twice_the_work_is_not(work: Callable[[str, float], None], number: int) -> None:  # noqa: ARG001 - a case
    work("twice", 2)
    work("once", 1)


@pytest.mark.parametrize("number", range(2))
@pytest.mark.latency_budget(ratio=1.25, of="once")
def test_the_same_work_takes_as_long(work: Callable[[str, float], None], number: int) -> None:  # noqa: ARG001 - a case
    work("again", 1)
    work("once", 1)


@pytest.mark.latency_budget("10s")
def test_within_seconds(work: Callable[[str, float], None]) -> None:
    work("once", 1)


@pytest.mark.latency_budget("1us")
def test_not_within_a_microsecond(work: Callable[[str, float], None]) -> None:
    work("once", 1)
