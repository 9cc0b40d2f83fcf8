"""What a forecast cannot follow: said by name, never guessed."""

from __future__ import annotations

from pytest_loraperf.errors import LoraperfError


class UnknownOperationError(LoraperfError):
    """An operation whose result's size depends on values, or that has no implementation without them."""

    def __init__(self, operation: str, cause: Exception) -> None:
        self.operation = operation
        super().__init__(
            f"forecast: unknown operation {operation} ({type(cause).__name__}): its result cannot be told without "
            "values; measure this strategy on a GPU"
        )
