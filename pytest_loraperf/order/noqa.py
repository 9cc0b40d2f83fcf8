"""``# noqa: LRP102 - reason``: what the author of a line knows about it, as linter and recorder read it."""

from __future__ import annotations

import re

_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)


def suppresses(text: str, code: str) -> bool:
    """Whether a comment, or a line with one, suppresses a code.

    ``# noqa`` suppresses all, ``# noqa: LRP102`` that code, ``# noqa: LRP1`` those that start so; what follows
    the codes is the reason.
    """
    found = _NOQA.search(text)
    if found is None:
        return False
    codes = found["codes"]
    return codes is None or code.startswith(tuple(re.split(r"[,\s]+", codes.upper())))
