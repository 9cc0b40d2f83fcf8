"""The hardware's limit, as arithmetic: which of operations, memory and bus is the longest, and how rates are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.limits import Counts, Limit, Rates, limit_of, mean, rates_shown
from pytest_loraperf.report.results import Latency, StrategyResult

RATES = Rates(operations={"bfloat16": 700e12, "float8_e4m3fn": 1400e12}, bytes=2.5e12, bus_bytes=55e9)


@pytest.mark.parametrize(
    ("counts", "seconds", "by"),
    [
        (Counts(operations={"bfloat16": 7 * 10**14}, bytes=10**12), 1.0, "operations"),
        (Counts(operations={"bfloat16": 7 * 10**14, "float8_e4m3fn": 7 * 10**14}), 1.5, "operations"),
        (Counts(operations={"bfloat16": 7 * 10**14}, bytes=5 * 10**12), 2.0, "memory"),
        (Counts(operations={"bfloat16": 7 * 10**14}, bytes=5 * 10**12, bus_bytes=165 * 10**9), 3.0, "bus"),
        (Counts(), 0.0, "operations"),
    ],
)
def test_the_longest_of_the_three_is_the_limit(counts: Counts, seconds: float, by: str) -> None:
    limit = limit_of(counts, RATES)
    assert limit.by == by
    assert limit.seconds == pytest.approx(seconds)
    assert (limit.operations, limit.bytes, limit.bus_bytes) == (counts.operations, counts.bytes, counts.bus_bytes)
    assert limit.not_counted == ()


def test_what_has_no_rate_takes_no_time_and_is_named() -> None:
    counts = Counts(operations={"int8": 10**18, "bfloat16": 7 * 10**14}, bus_bytes=10**15, not_counted=("a::b",))
    limit = limit_of(counts, Rates(operations={"bfloat16": 700e12}, bytes=2.5e12))
    assert limit.by == "operations"
    assert limit.seconds == pytest.approx(1.0)
    assert limit.not_counted == ("a::b", "products in int8", "copies from host memory")


@given(
    st.dictionaries(st.sampled_from(["bfloat16", "float8_e4m3fn"]), st.integers(0, 10**18)),
    st.integers(0, 10**15),
    st.integers(0, 10**15),
)
def test_no_part_is_longer_than_the_limit(operations: dict[str, int], held: int, moved: int) -> None:
    limit = limit_of(Counts(operations=operations, bytes=held, bus_bytes=moved), RATES)
    assert limit.seconds >= held / 2.5e12
    assert limit.seconds >= moved / 55e9
    assert all(limit.seconds >= count / RATES.operations[dtype] for dtype, count in operations.items())


def test_the_mean_of_several_requests() -> None:
    small = Counts(operations={"bfloat16": 10}, bytes=4, bus_bytes=2, not_counted=("a::b",))
    large = Counts(operations={"bfloat16": 30, "float32": 8}, bytes=6, bus_bytes=2, not_counted=("a::b", "c::d"))
    assert mean([small, large]) == Counts(
        operations={"bfloat16": 20, "float32": 4}, bytes=5, bus_bytes=2, not_counted=("a::b", "c::d")
    )
    assert mean([small]) == small


def test_rates_are_shown_in_the_units_of_data_sheets() -> None:
    rates = Rates(
        operations={"bfloat16": 712.4e12, "float32": 81.2e9, "float64": 5e6}, bytes=2**41, bus_bytes=55e9
    )
    assert list(rates_shown(rates)) == [
        "712 TFLOP/s in bfloat16",
        "81.2 GFLOP/s in float32",
        "5 MFLOP/s in float64",
        "2 TB/s of device memory",
        "51.2 GB/s from pinned host memory",
    ]
    assert list(rates_shown(Rates(operations={"bfloat16": 1.3e15}, bytes=2**30))) == [
        "1300 TFLOP/s in bfloat16",
        "1 GB/s of device memory",
    ]


def test_the_share_is_known_where_the_limit_and_the_time_are() -> None:
    limit = Limit(operations={}, bytes=0, bus_bytes=0, seconds=0.3, by="operations")
    latency = Latency(0.6, (0.5, 0.7), 9)
    assert StrategyResult(limit=limit, latency=latency).of_limit == pytest.approx(0.5)
    assert StrategyResult(limit=limit).of_limit is None
    assert StrategyResult(latency=latency).of_limit is None
    assert StrategyResult(limit=limit, latency=Latency(0.0, (0.0, 0.0), 9)).of_limit is None
