"""What the linter reports, and which codes it reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.order.events import Place
from pytest_loraperf.order.rules import DEFAULT, RULES, UNREADABLE

EVERY = (UNREADABLE, *(rule.code for rule in RULES))
NAMES = {UNREADABLE: "unreadable"} | {rule.code: rule.name for rule in RULES}
STATIC = frozenset(rule.code for rule in RULES if rule.static)
"""What the linter can find."""
WARNINGS = frozenset({"LRP102", "LRP103", "LRP110"})
"""What costs time or memory, or depends on the library's version; the others are wrong results or crashes."""


@dataclass(frozen=True, order=True)
class Finding:
    """A broken rule at a place: ``line`` from 1, ``col`` from 0.

    ``end_line`` is the last line of the operation, ``earlier`` the place of the one that it conflicts with.
    """

    path: str
    line: int
    col: int
    code: str
    name: str
    message: str
    end_line: int = field(default=0, compare=False)
    earlier: Place | None = field(default=None, compare=False)

    @property
    def severity(self) -> str:
        """``error`` or ``warning``."""
        return "warning" if self.code in WARNINGS else "error"


def unreadable(path: str, line: int, col: int, reason: str) -> Finding:
    """Return the finding for a file that cannot be read or parsed."""
    return Finding(path, line, col, UNREADABLE, NAMES[UNREADABLE], f"this file cannot be linted: {reason}")


def selected(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> frozenset[str]:
    """Return the codes to report: the default ones or those selected, without those ignored.

    An unreadable file is reported unless its code is ignored: selecting other codes does not silence it.

    Raises:
        LoraperfError: A word that names no code, or what is selected is found at run time alone.
    """
    chosen = frozenset(_expand("--select", select)) or DEFAULT
    if not any(code == UNREADABLE or code in STATIC for code in chosen):
        late = ", ".join(sorted(chosen))
        raise LoraperfError(f"--select: {late} is found at run time alone, never by the linter; select others too")
    return (chosen | {UNREADABLE}) - frozenset(_expand("--ignore", ignore))


def _expand(flag: str, words: Iterable[str]) -> Iterator[str]:
    for text in words:
        try:
            yield from codes_in(text)
        except LoraperfError as error:
            raise LoraperfError(f"{flag}: {error}") from error


def codes_in(text: str) -> tuple[str, ...]:
    """Return the codes that words between commas stand for.

    Raises:
        LoraperfError: A word that names no code.
    """
    return tuple(code for word in text.split(",") if word.strip() for code in _codes_of(word.strip()))


def _codes_of(word: str) -> list[str]:
    found = [code for code in EVERY if _matches(code, word.upper())]
    if not found:
        raise LoraperfError(f"{word!r} is no code; use one such as LRP102, LRP101-LRP109 or LRP1")
    return found


def _matches(code: str, word: str) -> bool:
    first, dash, last = word.partition("-")
    if dash:
        last = last if last.startswith("LRP") else f"LRP{last}"
        return _is_code(first) and _is_code(last) and first <= code <= last
    return bool(re.fullmatch(r"LRP\d{0,3}", word)) and code.startswith(word)


def _is_code(word: str) -> bool:
    return bool(re.fullmatch(r"LRP\d{3}", word))
