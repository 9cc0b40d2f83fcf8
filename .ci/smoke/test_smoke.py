"""What a repository that uses the plugin writes first; `run` beside this file runs it against the wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.lora_strategy("fused")
@pytest.mark.output_equivalent(to="standard_lora")
def test_strategy_by_marker(lora_pipeline: Callable[..., Any]) -> None:
    """The marker names the strategy, and a second one holds its output to another strategy's."""
    out = lora_pipeline(prompt="a ghost")
    assert out.latents.isfinite().all()


def test_strategy_by_fixture(fused_pipeline: Callable[..., Any]) -> None:
    """Each strategy has a fixture of its own."""
    out = fused_pipeline(prompt="a ghost")
    assert out.latents.isfinite().all()
