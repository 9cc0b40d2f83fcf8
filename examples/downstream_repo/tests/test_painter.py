"""Our own code: the order of its steps, its time and its memory.

The order and ``--gpu-budget`` need no marker: each test here is held to them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ghostly.painter import Painter, draw
from ghostly.pipeline import Load

from pytest_loraperf.fixtures import RegisterWorkload

PROMPT = "a ghost in a library"


def test_the_picture_has_the_size(painter: Painter, size: int) -> None:
    assert painter.paint(PROMPT, size).size == (size, size)


@pytest.mark.latency_budget(ratio=2, of="pipeline")
def test_painting_adds_nothing_to_its_pipeline(
    painter: Painter, size: int, gpu_workload: RegisterWorkload
) -> None:
    gpu_workload(painter.paint, PROMPT, size, name="paint")
    gpu_workload(draw, painter.pipe, PROMPT, size, painter.steps, name="pipeline")


@pytest.mark.latency_budget("5min")  # what a baseline holds it to is closer
def test_painting(painter: Painter, size: int, gpu_workload: RegisterWorkload) -> None:
    gpu_workload(painter.paint, PROMPT, size, name="paint")


@pytest.mark.vram_leak("100KB")
def test_a_painter_that_is_gone_leaves_nothing_behind(lora: Path, load: Load, device: str, size: int) -> None:
    Painter(lora, load, device).paint(PROMPT, size)
