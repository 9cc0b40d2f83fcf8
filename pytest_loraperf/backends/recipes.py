"""What backends decide alike: whether a strategy is compiled."""

from __future__ import annotations

from pytest_loraperf.backends.protocol import Choices, Recipe
from pytest_loraperf.backends.quantization import TORCHAO
from pytest_loraperf.strategies import StepKind, Strategy


def with_compile(
    strategy: Strategy, choices: Choices, scheme: str | None, reason: str | None, *, moves: bool
) -> Recipe:
    """Return the recipe, its compile step added or taken away as ``--loraperf-compile`` says.

    A step that the strategy has by itself is the user's word, and only ``off`` takes it away. One is added for
    ``on``, and where torchao needs it to be fast, but not where weights move between calls (``moves``).
    """
    had = strategy.has(StepKind.COMPILE)
    needed = TORCHAO in {step.scheme for step in strategy.steps}
    if choices.compile == "off":
        notes = (f"{strategy.name}: compile left out, --loraperf-compile=off",) if had or needed else ()
        return Recipe(strategy.without_compile(), scheme, reason, notes)
    if had or not (needed or choices.compile == "on"):
        return Recipe(strategy, scheme, reason)
    if moves:
        return Recipe(
            strategy, scheme, reason, (f"{strategy.name}: not compiled, its weights move between calls",)
        )
    return Recipe(strategy.compiled(), scheme, reason)
