"""What strategies are called in the results of a run that has several models, or several adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pytest_loraperf.report.results import Results, StrategyResult

SYNTHETIC = "a synthetic adapter"


class Built(NamedTuple):
    """What a strategy was built from: the model's name, and the labels of the adapters that were named."""

    model: str
    adapters: tuple[str, ...] = ()

    def beside(self, first: Built) -> str:
        """Return what tells this from the first of the run, such as `` (synthetic:full, b.safetensors:1)``."""
        parts = [self.model] if self.model != first.model else []
        if self.adapters != first.adapters:
            parts += self.adapters or [SYNTHETIC]
        return f" ({', '.join(parts)})" if parts else ""

    @classmethod
    def first(cls, results: Results) -> Built:
        """Return what the strategies with plain names were built from: the first that the run had."""
        named = (found.adapters for label, found in results.strategies.items() if label == plain(label))
        return cls(results.model, next(named, ()))

    @classmethod
    def of(cls, found: StrategyResult, results: Results) -> Built:
        """Return what one of the strategies was built from."""
        return cls(found.model or results.model, found.adapters)


def endings(found: Iterable[Built]) -> list[str]:
    """Return what goes behind a strategy's name for each of these: nothing for the first, and no text twice.

    Files of one name in two folders have one label, so a number tells these apart: `` (b.safetensors:1) #2``.
    """
    several = list(found)
    told = [each.beside(several[0]) for each in several]
    counts = [told[:place].count(ending) for place, ending in enumerate(told)]
    return [f"{ending} #{count + 1}" if count else ending for ending, count in zip(told, counts, strict=True)]


def numbered(label: str) -> str:
    """Return the number that ``endings`` gave a label, such as `` #2``, or nothing."""
    found = re.search(r" #\d+$", label)
    return found[0] if found else ""


def plain(label: str) -> str:
    """Return the strategy's own name, without what tells of the model and the adapters."""
    return label.split(" ", maxsplit=1)[0]
