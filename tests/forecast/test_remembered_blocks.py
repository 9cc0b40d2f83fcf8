"""Equal blocks are run once: what is counted is what running all of them counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pytest_loraperf.forecast.card import H100
from pytest_loraperf.forecast.meter import ForecastMeter

CUDA = "cuda:0"


class Layer(torch.nn.Module):
    runs = 0

    def __init__(self, width: int = 512, *, asks: bool = False, keeps: bool = False) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, width, device=CUDA)
        self.asks = asks
        self.keeps = keeps
        self.kept: list[object] = []

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        Layer.runs += 1
        if self.asks:
            torch.cuda.mem_get_info()
        y = (self.linear(x) * scale).relu()
        if self.keeps:
            self.kept.append(y + 1)
        return x, y * 2 + x


class Stack(torch.nn.Module):
    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        for layer in self.layers:
            _, x = layer(x, scale)
        return x


def counted(stack: Stack, meter: ForecastMeter, *, replay: bool, grad: bool = False) -> tuple[int, ...]:
    Layer.runs = 0
    with meter.watching(), torch.set_grad_enabled(grad):
        if replay:
            meter.replay.look_for_blocks(stack)
        x = torch.empty(4096, 512, device=CUDA)
        results = [stack(x), stack(x, 0.5)]
        assert [result.shape for result in results] == [x.shape, x.shape]
        found = meter.allocated_peak(), meter.allocated(), meter.peak(), meter.level()
        del results, x
        return *found, meter.allocated()


@pytest.mark.parametrize(
    ("options", "grad", "runs"),
    [
        ({}, False, 2),
        ({"asks": True}, False, 12),
        ({"keeps": True}, False, 12),
        ({}, True, 12),  # autograd keeps what a backward pass would need
    ],
)
def test_it_counts_what_running_all_counts(options: dict[str, bool], grad: bool, runs: int) -> None:
    counts = []
    for replay in (False, True):
        meter = ForecastMeter(H100)
        with meter.watching():
            stack = Stack(*(Layer(**options) for _ in range(6)))
        counts.append(counted(stack, meter, replay=replay, grad=grad))
        assert Layer.runs == (runs if replay else 12)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("compiles", [False, True])
def test_hooks_are_run_though_their_blocks_are_not(*, compiles: bool) -> None:
    """A hook that brings weights and one that drops them: what stays over calls counts, and every hook is run."""
    counts = []
    for replay in (False, True):
        meter = ForecastMeter(H100)
        calls: list[str] = []
        held: list[Tensor] = []

        def bring(*_: object, held: list[Tensor] = held, calls: list[str] = calls) -> None:
            held.append(torch.empty(2**20, device=CUDA))
            calls.append("bring")

        def drop(*_: object, held: list[Tensor] = held, calls: list[str] = calls) -> None:
            del held[: len(held) - 4]  # the last four stay
            calls.append("drop")

        with meter.watching():
            stack = Stack(*(Layer() for _ in range(6)))
            for layer in stack.layers:
                layer.register_forward_pre_hook(bring)
                layer.register_forward_hook(drop)
                if compiles:
                    layer.compile()
        counts.append((*counted(stack, meter, replay=replay), len(calls)))
        assert "forward" not in vars(stack.layers[0])
        assert Layer.runs == (2 if replay and not compiles else 12)
        held.clear()
    assert counts[0] == counts[1]
    assert counts[0][-1] == 24


def test_unequal_blocks_are_run_each(meter: ForecastMeter) -> None:
    with meter.watching():
        stack = Stack(Layer(), Layer(), Layer())
        stack.layers[1].get_submodule("linear").register_parameter("bias", None)
        setattr(stack.layers[2], "extra", 3)  # noqa: B010 - mypy takes it for a Tensor
    counted(stack, meter, replay=True)
    assert Layer.runs == 6


def test_what_is_no_module_has_no_blocks(meter: ForecastMeter) -> None:
    meter.replay.look_for_blocks(object())
    with meter.watching():
        assert Layer()(torch.empty(2, 512, device=CUDA))[1].shape == (2, 512)
