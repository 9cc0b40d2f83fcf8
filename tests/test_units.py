"""Sizes, durations, ratios and percentages, read and shown."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_loraperf.errors import LoraperfError, UnitError
from pytest_loraperf.units import (
    format_duration,
    format_size,
    four_digits,
    parse_duration,
    parse_percent,
    parse_ratio,
    parse_size,
)

PARSERS: tuple[Callable[[object], float], ...] = (parse_size, parse_duration, parse_ratio, parse_percent)
SIZE = "write a positive number and a unit, such as 14GB or 512MiB"
DURATION = "write a positive number and a unit, such as 250ms, 1.5s or 2min"
RATIO = "write a positive number, such as 1.05, 1.05x or 105%"
PERCENT = "write at least 0% and less than 100%, such as 5%"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("14GB", 14 * 2**30),
        ("14 GB", 14 * 2**30),
        ("14GiB", 14 * 2**30),
        (" 14gb ", 14 * 2**30),
        ("1.5GiB", 3 * 2**29),
        (".5GB", 2**29),
        ("512MiB", 2**29),
        ("512MB", 2**29),
        ("64kB", 2**16),
        ("64KiB", 2**16),
        ("2TB", 2**41),
        ("1024B", 1024),
        ("1.9B", 1),
    ],
)
def test_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        "14",
        "",
        "GB",
        "0GB",
        "0.5B",
        "-5GB",
        "+5GB",
        "1iB",
        "1e3MB",
        "1,5GB",
        "14GB!",
        "14G",
        "2 MBananas",
        "nanGB",
        "infGB",
        pytest.param("9" * 400 + "TB", id="huge"),
        "\u0661GB",  # a digit, but not one of ours
        14,
        None,
        True,
    ],
    ids=repr,
)
def test_size_is_refused(value: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_size(value)
    assert str(caught.value).startswith("size ")
    assert str(caught.value).endswith(f": {SIZE}")


def test_refusal_shows_what_was_found() -> None:
    with pytest.raises(UnitError) as caught:
        parse_size("14")
    assert str(caught.value) == f"size '14': {SIZE}"


def test_refusal_is_one_short_line_whatever_was_found() -> None:
    class Matrix:
        def __repr__(self) -> str:
            return "[[1, 2],\n [3, 4]]" * 10

    with pytest.raises(UnitError) as caught:
        parse_size(Matrix())
    assert str(caught.value) == f"size {('[[1, 2], [3, 4]]' * 10)[:59]}…: {SIZE}"


def test_refusal_is_an_error_of_ours_and_a_value_error() -> None:
    assert issubclass(UnitError, LoraperfError)
    assert issubclass(UnitError, ValueError)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (2**20 - 1, "1 MB"),
        (14 * 2**30, "14 GB"),
        (int(13.9 * 2**30), "13.9 GB"),
        (int(1.17 * 2**30), "1.17 GB"),
        (1000 * 2**20, "1000 MB"),
        (2**51, "2048 TB"),
        (-(2**30), "-1 GB"),
    ],
)
def test_size_is_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(1, 2**60))
@example(2**30 - 1)
def test_size_shown_is_read_again(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=6e-3)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("1.5 S", 1.5),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("80us", 80e-6),
        ("80µs", 80e-6),
        ("80\u03bcs", 80e-6),  # the Greek letter, not the sign
        (3, 3.0),
        (0.25, 0.25),
    ],
)
def test_duration_is_read(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "value",
    [
        "1.5",
        "",
        "s",
        "0s",
        "-1s",
        "nans",
        "infs",
        "2minutes",
        "1 m",
        0,
        -1,
        math.nan,
        math.inf,
        pytest.param(10**400, id="huge"),
        True,
        None,
    ],
    ids=repr,
)
def test_duration_is_refused(value: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_duration(value)
    assert str(caught.value).startswith("duration ")
    assert str(caught.value).endswith(f": {DURATION}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.128, "1.128 s"),
        (54.0, "54.00 s"),
        (1234.0, "1234 s"),
        (12345.0, "12345 s"),
        (0.0321, "32.10 ms"),
        (0.99999, "1.000 s"),
        (80e-6, "80.00 us"),
    ],
)
def test_duration_is_shown(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(1e-9, 1e9))
@example(0.99994)
@example(9999.6)
def test_duration_shown_is_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=5.1e-4)


@pytest.mark.parametrize(("value", "text"), [(1.128, "1.128"), (50.6, "50.60"), (9999.4, "9999"), (1e5, "100000")])
def test_four_digits(value: float, text: str) -> None:
    assert four_digits(value) == text


@pytest.mark.parametrize("value", [1.05, "1.05", "1.05x", "1.05 X", "1.05×", "105%", " 105 % "], ids=repr)
def test_ratio_is_read(value: object) -> None:
    assert parse_ratio(value) == pytest.approx(1.05, rel=1e-12)


@pytest.mark.parametrize(
    "value",
    ["", "x", "0", "0%", "-1", "1.05y", "nan", "inf", "1e3", 0, -1.0, math.nan, math.inf, False, None],
    ids=repr,
)
def test_ratio_is_refused(value: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_ratio(value)
    assert str(caught.value) == f"ratio {value!r}: {RATIO}"


@pytest.mark.parametrize(
    ("value", "fraction"), [("5%", 0.05), ("0%", 0.0), ("12.5 %", 0.125), ("99.9%", 0.999), (0.05, 0.05), (0, 0.0)]
)
def test_percentage_is_read(value: object, fraction: float) -> None:
    assert parse_percent(value) == pytest.approx(fraction, rel=1e-12)


@pytest.mark.parametrize(
    "value", ["5", "0.05", "", "%", "100%", "-5%", "nan%", 1, 5, -0.1, math.nan, math.inf, True, None], ids=repr
)
def test_percentage_is_refused(value: object) -> None:
    with pytest.raises(UnitError) as caught:
        parse_percent(value)
    assert (
        str(caught.value)
        == f"percentage {value!r}: {PERCENT}{'' if isinstance(value, str) else ', or the number 0.05'}"
    )


@pytest.mark.parametrize("parse", PARSERS)
@given(
    st.one_of(
        st.text(),
        st.from_regex(r"[-+]?[0-9.]{0,5}\s?[A-Za-zµ%×]{0,4}"),
        st.floats(),
        st.integers(),
        st.booleans(),
        st.binary(),
    )
)
def test_anything_is_a_sound_number_or_a_unit_error_of_one_line(
    parse: Callable[[object], float], value: object
) -> None:
    try:
        found = parse(value)
    except UnitError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right, each is checked
    else:
        assert math.isfinite(found)
        assert found > 0 or parse is parse_percent
