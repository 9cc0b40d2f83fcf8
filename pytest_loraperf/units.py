"""Sizes, durations, ratios and percentages: read what a user writes, show what a user reads."""

from __future__ import annotations

import math
import re

from pytest_loraperf.errors import UnitError

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# Both ways to write micro: the sign of its own, and the Greek letter.
_SECONDS = {"us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SHOWN = 60


def parse_size(text: object) -> int:
    """Return the bytes of a size such as ``14GB``; GB and GiB are both 2**30, as card sizes are.

    Raises:
        UnitError: it is no number with a unit, or less than one byte.
    """
    found = _match(rf"{_NUMBER}\s*(?:([kmgt])i?)?b", text)
    size = float(found[1]) * _SIZES[found[2] or ""] if found else 0
    if size < 1 or not math.isfinite(size):
        raise UnitError(f"size {_show(text)}: write a positive number and a unit, such as 14GB or 512MiB")
    return int(size)


def format_size(size: int) -> str:
    """Show bytes with three digits and their unit: ``13.9 GB``."""
    for prefix in ("t", "g", "m", "k"):
        scale = _SIZES[prefix]
        # 0.9995 of a unit would show as 1000 or 1024 of the smaller one.
        if abs(size) >= scale * 0.9995:
            return f"{_three_digits(size / scale)} {prefix.upper()}B"
    return f"{size} B"


def _three_digits(value: float) -> str:
    # Above a thousand the format would turn to an exponent.
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def parse_duration(value: object) -> float:
    """Return the seconds of a duration such as ``250ms``, ``1.5s`` or ``2min``; a number is seconds.

    Raises:
        UnitError: it is no number with a unit, or not positive.
    """
    seconds = _number(value)
    if found := _match(rf"{_NUMBER}\s*({'|'.join(_SECONDS)})", value):
        seconds = float(found[1]) * _SECONDS[found[2]]
    if not (math.isfinite(seconds) and seconds > 0):
        raise UnitError(
            f"duration {_show(value)}: write a positive number and a unit, such as 250ms, 1.5s or 2min"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Show seconds with four digits and their unit: ``1.128 s``, ``32.10 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= scale * 0.99995:
            return f"{four_digits(seconds / scale)} {unit}"
    return f"{four_digits(seconds / 1e-6)} us"


def four_digits(value: float) -> str:
    """Show a number with four digits, zeros included, or all before the point where they are more."""
    # Above ten thousand the format would turn to an exponent.
    return f"{value:.0f}" if abs(value) >= 9999.5 else f"{value:#.4g}".rstrip(".")  # noqa: PLR2004 - four digits


def parse_ratio(value: object) -> float:
    """Return a ratio such as 1.05, ``1.05``, ``1.05x`` or ``105%``.

    Raises:
        UnitError: it is no positive number.
    """
    ratio = _number(value)
    if found := _match(rf"{_NUMBER}\s*([x×%]?)", value):
        ratio = float(found[1]) / (100 if found[2] == "%" else 1)
    if not (math.isfinite(ratio) and ratio > 0):
        raise UnitError(f"ratio {_show(value)}: write a positive number, such as 1.05, 1.05x or 105%")
    return ratio


def parse_percent(value: object) -> float:
    """Return the fraction of a percentage: 0.05 of ``5%``; a number is the fraction itself.

    A text without its ``%`` is refused: ``"5"`` and ``"0.05"`` would be guesses.

    Raises:
        UnitError: it is not at least 0 % and below 100 %.
    """
    fraction = _number(value)
    if found := _match(rf"{_NUMBER}\s*%", value):
        fraction = float(found[1]) / 100
    if not 0 <= fraction < 1:
        number = "" if isinstance(value, str) else ", or the number 0.05"
        raise UnitError(f"percentage {_show(value)}: write at least 0% and less than 100%, such as 5%{number}")
    return fraction


def _match(pattern: str, text: object) -> re.Match[str] | None:
    return re.fullmatch(pattern, text.strip().lower()) if isinstance(text, str) else None


def _number(value: object) -> float:
    """Return a number as it is, and nan for all that is none; True is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int beyond the range of floats
        return math.inf


def _show(value: object) -> str:
    # A message is one line, and the repr of an array is not.
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
