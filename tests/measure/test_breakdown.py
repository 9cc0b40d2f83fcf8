"""Where the memory of a pipeline goes: weights by part, and the call in which most is live."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_loraperf.bench.breakdown import PeakFinder, weights_by_part
from pytest_loraperf.measure.memory import TensorBytes

KB = 2**10


class Block(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.up = nn.Linear(16, wide, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        made: Tensor = self.up(values)
        return made.sum(-1, keepdim=True) + values


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(64), Block(1024)])
        self.head = nn.Linear(16, 16, bias=False, dtype=torch.float64)

    def forward(self, values: Tensor) -> Tensor:
        for block in self.blocks:
            values = block(values)
        return values


class Pipeline(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dit = Model()


def test_weights_by_part_and_type() -> None:
    pipeline = Pipeline()
    pipeline.dit.blocks[0].register_buffer("again", pipeline.dit.head.weight)  # shared: counted once
    assert weights_by_part(pipeline, "cpu") == (
        ("dit.blocks, 2 blocks (float32)", 68 * KB),
        ("dit.blocks, 2 blocks (float64)", 2 * KB),
    )
    assert weights_by_part(pipeline, "cuda") == ()


def test_what_is_no_module_has_no_parts() -> None:
    assert weights_by_part(object(), "cpu") == ()


def test_the_call_in_which_most_is_live() -> None:
    pipeline, meter = Pipeline(), TensorBytes()
    call = nn.Module.__call__
    with meter.watching(), torch.no_grad():
        values = torch.ones(8, 16)
        finder = PeakFinder(meter, pipeline)
        meter.reset_peak()
        with finder.looking():
            pipeline.dit(values)
    assert finder.found is not None
    name, size = finder.found
    assert name == "dit.blocks.1"  # its sum is made while what its layer made is live
    assert size >= 32 * KB
    assert nn.Module.__call__ is call


def test_memory_that_a_model_makes_itself_is_its_own() -> None:
    class Greedy(Pipeline):
        def forward(self, values: Tensor) -> Tensor:
            made = self.dit(values)
            many = torch.ones(2**16) * 2
            result: Tensor = self.dit(made) + many.sum()
            return result

    pipeline, meter = Greedy(), TensorBytes()
    with meter.watching(), torch.no_grad():
        finder = PeakFinder(meter, pipeline)
        with finder.looking():
            pipeline(torch.ones(8, 16))
    assert finder.found is not None
    assert finder.found[0] == "the pipeline"


def test_a_call_that_raises_leaves_torch_as_it_was() -> None:
    call = nn.Module.__call__
    finder = PeakFinder(TensorBytes(), pipeline := Pipeline())
    with pytest.raises(RuntimeError), finder.looking():
        pipeline.dit(torch.ones(8, 3))
    assert nn.Module.__call__ is call
