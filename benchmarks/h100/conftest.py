"""A strategy that the comparisons of this folder need beside those that are shipped."""

from __future__ import annotations

from pytest_loraperf import ATTACH, COMPILE, Strategy


def pytest_loraperf_strategies() -> list[Strategy]:
    """Return standard LoRA as it is at its best: its blocks compiled."""
    return [Strategy("compiled_lora", (ATTACH, COMPILE))]
