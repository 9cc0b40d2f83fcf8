"""Whether a call is to be recorded: not inside of one that is, nor while a declared order is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Inside:
    """What the calls inside of a recorded one tell of it: whether it fused, and the layers its adapter is for.

    It holds no model: a context may outlive the call.
    """

    fused: bool = False
    names: frozenset[str] | None = None


INSIDE: ContextVar[Inside | None] = ContextVar("loraperf_inside", default=None)


@contextmanager
def declared() -> Iterator[None]:
    """Record nothing here: the order is declared, as a strategy that is built by its name is."""
    token = INSIDE.set(Inside())
    try:
        yield
    finally:
        INSIDE.reset(token)
