"""Sizes, durations, ratios and percentages: read what a user writes, show what a user reads."""

from __future__ import annotations

import math
import re

from pytest_loraperf.errors import UnitError

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SIZES = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_size(text: object) -> int:
    """Return the bytes of a size such as ``14GB``; GB and GiB are both 2**30, as card sizes are.

    Raises:
        UnitError: it is no number with a unit, or not positive.
    """
    found = re.fullmatch(rf"{_NUMBER}\s*([kmgt]?)i?(b)", text.strip().lower()) if isinstance(text, str) else None
    size = float(found[1]) * _SIZES[found[2] + found[3]] if found else 0
    if size < 1 or not math.isfinite(size):
        raise UnitError(f"size {text!r}: write a positive number and a unit, such as 14GB or 512MiB")
    return int(size)


def format_size(size: int) -> str:
    """Show bytes with three digits and their unit: ``13.9 GB``."""
    for unit in ("TB", "GB", "MB", "KB"):
        scale = _SIZES[unit.lower()]
        # 0.9995 of a unit would show as 1000 or 1024 of the smaller one.
        if abs(size) >= scale * 0.9995:
            return f"{_three_digits(size / scale)} {unit}"
    return f"{size} B"


def _three_digits(value: float) -> str:
    # Above a thousand the format would turn to an exponent.
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def parse_duration(value: object) -> float:
    """Return the seconds of a duration such as ``250ms``, ``1.5s`` or ``2min``; a number is seconds.

    Raises:
        UnitError: it is no number with a unit, or not positive.
    """
    seconds = math.nan
    if isinstance(value, str):
        found = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(_SECONDS)})", value.strip().lower())
        seconds = float(found[1]) * _SECONDS[found[2]] if found else math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _as_float(value)
    if not (math.isfinite(seconds) and seconds > 0):
        raise UnitError(f"duration {value!r}: write a positive number and a unit, such as 250ms, 1.5s or 2min")
    return seconds


def format_duration(seconds: float) -> str:
    """Show seconds with four digits: ``1.128 s``, ``32.10 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= scale * 0.99995:
            return f"{_four_digits(seconds / scale)} {unit}"
    return f"{_four_digits(seconds / 1e-6)} us"


def _four_digits(value: float) -> str:
    # Above ten thousand the format would turn to an exponent.
    return f"{value:.0f}" if abs(value) >= 9999.5 else f"{value:#.4g}".rstrip(".")  # noqa: PLR2004 - four digits


def parse_ratio(value: object) -> float:
    """Return a ratio such as 1.05, ``1.05``, ``1.05x`` or ``105%``.

    Raises:
        UnitError: it is no positive number.
    """
    ratio = math.nan
    if isinstance(value, str):
        found = re.fullmatch(rf"{_NUMBER}\s*([x×%]?)", value.strip().lower())
        ratio = float(found[1]) / (100 if found[2] == "%" else 1) if found else math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        ratio = _as_float(value)
    if not (math.isfinite(ratio) and ratio > 0):
        raise UnitError(f"ratio {value!r}: write a positive number, such as 1.05, 1.05x or 105%")
    return ratio


def parse_percent(value: object) -> float:
    """Return the fraction of a percentage such as ``5%``; a number is the fraction itself.

    Raises:
        UnitError: it is not at least 0 % and below 100 %.
    """
    fraction = math.nan
    if isinstance(value, str):
        found = re.fullmatch(rf"{_NUMBER}\s*%", value.strip())
        fraction = float(found[1]) / 100 if found else math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        fraction = _as_float(value)
    if not 0 <= fraction < 1:
        raise UnitError(f"percentage {value!r}: write at least 0% and less than 100%, such as 5%")
    return fraction


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int beyond the range of floats
        return math.inf
