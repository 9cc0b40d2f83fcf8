"""What a device does in a second, by clocks that tests move."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from pytest_loraperf.errors import ClockError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.limits import Rates
from pytest_loraperf.measure.rates import LEAST, MOST, Sizes, measure_rates
from pytest_loraperf.measure.timing import Stopwatch

CPU = Device("cpu", "CPU")
SMALL = Sizes(side=32, copied=4096, seconds=0.1, calls=4)


def ticking(step: float) -> Stopwatch:
    """A clock that goes on by so many seconds each time that it is read; a sample reads it four times."""
    ticks = count()
    return Stopwatch(lambda: next(ticks) * step)


def test_rates_are_work_over_time() -> None:
    found = measure_rates(CPU, ticking(1.0), ["bfloat16", "float32", "float8_e4m3fn"], sizes=SMALL)
    # From the first reading of a sample to the last there are three steps.
    assert found.operations == dict.fromkeys(["bfloat16", "float32", "float8_e4m3fn"], 4 * 2 * 32**3 / 3)
    assert (found.bytes, found.bus_bytes) == (4 * 2 * 4096 / 3, None)


@pytest.mark.parametrize(("step", "samples"), [(1.0, LEAST), (1e-6, MOST), (0.1 / 15, 5)])
def test_samples_end_with_the_time_but_three_are_taken(
    step: float, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    multiply = torch.mm

    def counted(*arguments: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return multiply(*arguments, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    measure_rates(CPU, ticking(step), ["float32"], sizes=SMALL)
    assert len(calls) == 2 + 4 * samples  # one to see whether there is such a product, one to warm up


def test_what_is_known_is_not_measured_again() -> None:
    known = Rates(operations={"bfloat16": 1.0}, bytes=2.0, bus_bytes=3.0)
    found = measure_rates(CPU, ticking(1.0), ["bfloat16", "float32"], known, SMALL)
    assert found == Rates(operations={"bfloat16": 1.0, "float32": 4 * 2 * 32**3 / 3}, bytes=2.0, bus_bytes=3.0)


def test_a_dtype_without_a_product_has_no_rate() -> None:
    assert measure_rates(CPU, ticking(1.0), ["int64", "uint8"], sizes=SMALL).operations == {}


def test_memory_that_runs_out_is_no_missing_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("the card is full")

    monkeypatch.setattr(torch, "mm", full)
    with pytest.raises(torch.OutOfMemoryError, match="the card is full"):
        measure_rates(CPU, ticking(1.0), ["float32"], sizes=SMALL)


def test_a_clock_that_stands_still_gives_no_rate() -> None:
    with pytest.raises(ClockError) as raised:
        measure_rates(CPU, ticking(0.0), ["float32"], sizes=SMALL)
    assert str(raised.value) == (
        "a matrix product or a copy took no time by the clock, which is too coarse or stands still; "
        "mend the clock, or leave out --loraperf-limits"
    )


def test_on_this_machine() -> None:
    found = measure_rates(CPU, Stopwatch(), ["bfloat16"])
    assert found.operations["bfloat16"] > 1e8
    assert found.bytes > 1e8
    assert found.bus_bytes is None
