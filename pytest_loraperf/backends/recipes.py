"""What backends decide alike: whether a strategy is compiled."""

from __future__ import annotations

from pytest_loraperf.backends.protocol import Choices, Recipe
from pytest_loraperf.strategies import StepKind, Strategy


def with_compile(
    strategy: Strategy, choices: Choices, scheme: str | None, reason: str | None, *, wanted: bool, moves: bool
) -> Recipe:
    """Return the recipe, its compile step added or taken away as ``--loraperf-compile`` says.

    ``wanted`` says that it is to be compiled where it can be, which it cannot where its weights move between calls
    (``moves``).
    """
    if choices.compile == "off":
        had = strategy.has(StepKind.COMPILE)
        notes = (f"{strategy.name}: compile left out, --loraperf-compile=off",) if had else ()
        return Recipe(strategy.without_compile(), scheme, reason, notes)
    if wanted and moves:
        notes = (f"{strategy.name}: not compiled, its weights move between calls",)
        return Recipe(strategy.without_compile(), scheme, reason, notes)
    return Recipe(strategy.compiled() if wanted else strategy, scheme, reason)
