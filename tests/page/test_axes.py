"""Axes, units and names of charts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_loraperf.page.axes import labels, scale, shortened
from pytest_loraperf.page.units import bytes_unit, seconds_unit

positive = st.floats(min_value=1e-9, max_value=1e15)
any_positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@example(values=[499999999954546.0], marks=3, zero=False)
@given(st.lists(positive, min_size=1, max_size=9), st.integers(3, 8), st.booleans())
def test_every_value_lies_on_its_axis(values: list[float], marks: int, zero: bool) -> None:
    found = scale(values, marks=marks, zero=zero)
    assert found.low <= min(values) <= max(values) <= found.high
    assert found.low < found.high
    assert all(found.low <= tick <= found.high for tick in found.ticks)
    assert len(found.ticks) <= marks + 1
    places = [found.place(value, 100) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@example(values=[5e-324, 1.0], zero=False)
@example(values=[5e-324], zero=True)
@example(values=[1e308, 1.7e308], zero=False)
@example(values=[1.642182402700446e32, 1.192092896e-07], zero=False)
@given(st.lists(any_positive, min_size=1, max_size=5), st.booleans())
def test_values_beyond_all_that_can_be_measured_have_an_axis_too(values: list[float], zero: bool) -> None:
    found = scale(values, zero=zero, include=[values[-1]])
    assert found.low < found.high
    assert all(found.low <= tick <= found.high for tick in found.ticks)
    assert all(0 <= found.place(value, 100) <= 100 for value in values)


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [
        ([5.4, 41], False, (10, 20, 30, 40)),
        ([1, 100], True, (1, 3, 10, 30, 100)),
        ([0.0004, 0.0005], False, (0.0004, 0.00042, 0.00044, 0.00046, 0.00048, 0.0005)),
        ([7.0], False, (6.5, 6.75, 7.0, 7.25, 7.5)),
    ],
)
def test_an_axis_is_logarithmic_where_values_are_far_apart(
    values: list[float], log: bool, ticks: tuple[float, ...]
) -> None:
    found = scale(values)
    assert (found.log, found.ticks) == (log, ticks)


def test_a_budget_lies_on_the_axis_without_a_say_in_its_kind() -> None:
    found = scale([1.0, 2.0], include=[80.0])
    assert (found.log, found.high > 80) == (False, True)


def test_an_axis_from_zero() -> None:
    assert scale([1.0, 500.0], zero=True).low == 0


def test_names_that_are_cut_alike_stay_apart() -> None:
    names = ["a" * 50, "a" * 51, "b", "b\n", "", " "]
    found = labels(names, 10)
    assert len(set(found.values())) == len(names)
    assert all(0 < len(text) <= 10 for text in found.values())
    assert found["a" * 50] == "aaaaa…aaaa"


def test_a_text_is_cut_in_its_middle_and_in_one_line() -> None:
    assert shortened("one\ntwo\x1b[31m", 99) == "one two?[31m"
    assert shortened("a_strategy[fp8]", 9) == "a_st…fp8]"


def test_units() -> None:
    assert bytes_unit([2**30, 5]).name == "GB"
    assert bytes_unit([3 * 2**20]) == ("MB", 2**20)
    assert bytes_unit([]).name == "B"
    assert [seconds_unit([time]).name for time in (2.0, 0.01, 1e-5, 1e-12)] == ["s", "ms", "µs", "µs"]
