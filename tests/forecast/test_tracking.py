"""Tensors without values on a card that is not there: what is counted, what is known, and what cannot be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pytest_loraperf.forecast.card import H100, Card
from pytest_loraperf.forecast.meter import ForecastMeter
from pytest_loraperf.forecast.unknown import UnknownOperationError

MIB = 2**20
CUDA = "cuda:0"


def mib(size: int, device: str = CUDA) -> Tensor:
    return torch.empty(size * MIB, dtype=torch.uint8, device=device)


def test_a_tensor_is_counted_while_it_lives(meter: ForecastMeter) -> None:
    with meter.watching():
        tensor = mib(30)
        view = tensor[: 2 * MIB].view(2, MIB)
        assert meter.allocated() == 30 * MIB
        del tensor
        assert meter.allocated() == 30 * MIB
        del view
        assert meter.allocated() == 0
        assert meter.allocated_peak() == 30 * MIB
        assert meter.peak() == 30 * MIB
        assert meter.level() == 0


def test_host_memory_is_not_counted(meter: ForecastMeter) -> None:
    with meter.watching():
        tensor = mib(30, "cpu")
        assert meter.allocated() == 0
        there = tensor.to(CUDA)
        assert meter.allocated() == there.nbytes
        back = there.cpu()
        assert (back.device.type, meter.allocated()) == ("cpu", 30 * MIB)


def test_it_is_counted_across_watches(meter: ForecastMeter) -> None:
    with meter.watching():
        tensor = mib(3)
    with meter.watching(), meter.watching():
        other = tensor + tensor
        assert meter.allocated() == 6 * MIB
    del tensor, other
    assert meter.allocated() == 0


def test_a_module_moves_and_changes_its_type_in_place(meter: ForecastMeter) -> None:
    with meter.watching():
        linear = torch.nn.Linear(1024, 2048, bias=False, device="cpu", dtype=torch.bfloat16)
        weight = linear.weight
        linear.to(CUDA)
        assert linear.weight is weight
        assert (weight.device.type, weight.data.device.type) == ("cuda", "cuda")
        assert meter.allocated() == 4 * MIB
        linear.to(torch.float8_e4m3fn)
        assert (weight.dtype, meter.allocated()) == (torch.float8_e4m3fn, 2 * MIB)
        copied = copy.deepcopy(linear)
        assert meter.allocated() == 4 * MIB
        linear.to("cpu")
        del copied
        assert meter.allocated() == 0


def test_the_workspace_of_products_is_taken_once(meter: ForecastMeter) -> None:
    with meter.watching():
        matrix = torch.empty(256, 256, device=CUDA)
        before = meter.allocated()
        product = matrix @ matrix
        assert meter.allocated() == before + product.nbytes + 32 * MIB
        other = matrix @ matrix
        assert meter.allocated() == before + 2 * other.nbytes + 32 * MIB


def test_earlier_cards_give_products_less() -> None:
    assert Card("A100", (8, 0), 0, 0, 0).workspace == 8 * MIB + 128 * 2**10


@pytest.mark.parametrize("mask", [False, True])
def test_attention_makes_no_matrix_of_tokens(meter: ForecastMeter, mask: bool) -> None:
    tokens = 8192
    with meter.watching():
        q = torch.empty(1, 4, tokens, 64, dtype=torch.bfloat16, device=CUDA)
        seen = torch.ones(1, 1, 1, tokens, dtype=torch.bool, device=CUDA) if mask else None
        before = meter.allocated()
        meter.reset_peak()
        out = functional.scaled_dot_product_attention(q, q, q, seen)
        assert out.shape == q.shape
        assert out.nbytes <= meter.allocated_peak() - before < out.nbytes + MIB < tokens * tokens


def test_attention_with_fewer_keys_and_odd_widths(meter: ForecastMeter) -> None:
    with meter.watching():
        q = torch.empty(1, 8, 128, 36, dtype=torch.bfloat16, device=CUDA)
        k = torch.empty(1, 2, 128, 36, dtype=torch.bfloat16, device=CUDA)
        assert functional.scaled_dot_product_attention(q, k, k, enable_gqa=True).shape == q.shape
        q32, k32 = q.float(), k.float()
        assert functional.scaled_dot_product_attention(q32, k32, k32, enable_gqa=True).shape == q.shape


def test_attention_on_the_cpu_is_its_own(meter: ForecastMeter) -> None:
    with meter.watching():
        q = torch.empty(1, 2, 8, 16)
        assert functional.scaled_dot_product_attention(q, q, q).device.type == "cpu"


def test_values_of_small_tensors_are_known(meter: ForecastMeter) -> None:
    with meter.watching():
        mask = torch.ones(1, 200, dtype=torch.long, device=CUDA)
        assert mask.sum(dim=1).tolist() == [200]
        steps = torch.linspace(1, 0, 5)
        steps[0] = 3
        assert steps[torch.argmin((steps - 0.5).abs())].item() == 0.5
        assert steps[:2].tolist() == [3.0, 0.75]
        assert float(torch.tensor(2.5, device=CUDA)) == 2.5


def test_what_random_or_unwritten_memory_holds_is_not_known(meter: ForecastMeter) -> None:
    with meter.watching():
        for tensor in (torch.rand(3), torch.empty(3), torch.zeros(2**15).sum()):
            with pytest.raises(
                UnknownOperationError, match=r"unknown operation aten\._local_scalar_dense\.default"
            ):
                float(tensor.sum())


def test_what_is_overwritten_with_unknown_values_is_not_known_any_more(meter: ForecastMeter) -> None:
    with meter.watching():
        known = torch.zeros(4)
        view = known[:2]
        known.copy_(torch.rand(4))
        with pytest.raises(UnknownOperationError):
            view[0].item()


def test_a_mask_that_is_known_picks(meter: ForecastMeter) -> None:
    with meter.watching():
        rows = torch.empty(2, 3, 8, device=CUDA)
        mask = torch.tensor([[1, 1, 0], [1, 0, 0]], device=CUDA).bool()
        assert rows[mask].shape == (3, 8)
        assert mask.nonzero().shape == (3, 2)


def test_an_operation_that_needs_values_is_named(meter: ForecastMeter) -> None:
    with meter.watching():
        unknown = torch.rand(8, device=CUDA) > 0.5
        with pytest.raises(UnknownOperationError) as raised:
            unknown.nonzero()
    assert str(raised.value) == (
        "forecast: unknown operation aten.nonzero.default (DynamicOutputShapeException): its result cannot be told "
        "without values; measure this strategy on a GPU"
    )


def test_cuda_is_the_card_inside_and_what_it_is_outside(meter: ForecastMeter) -> None:
    before = torch.cuda.is_available()
    with meter.watching():
        assert torch.cuda.is_available()
        assert torch.cuda.get_device_capability() == (9, 0)
        tensor = mib(64)
        free, total = torch.cuda.mem_get_info()
        assert total - free == H100.context + H100.elsewhere + 64 * MIB
        assert meter.free() == free
        del tensor
        torch.cuda.empty_cache()
        assert torch.cuda.mem_get_info()[0] == free + 64 * MIB
        assert torch.randn(3, generator=torch.Generator(CUDA).manual_seed(1), device=CUDA).device.type == "cuda"
    assert torch.cuda.is_available() is before
    assert isinstance(torch.Generator("cpu"), torch.Generator)


def test_real_tensors_are_taken_as_they_come(meter: ForecastMeter) -> None:
    real = torch.arange(4.0)
    with meter.watching():
        there = real.to(CUDA, torch.bfloat16)
        assert (there.device.type, there.dtype) == ("cuda", torch.bfloat16)
        assert there.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_resized_storage_is_counted_anew(meter: ForecastMeter) -> None:
    with meter.watching():
        tensor = mib(2)
        tensor.resize_(4 * MIB)
        assert meter.allocated() == 4 * MIB


class Chain(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ((x * 2 + 1).sigmoid() * x).relu()


def peak_of(meter: ForecastMeter, module: torch.nn.Module, x: Tensor) -> int:
    before = meter.allocated()
    meter.reset_peak()
    module(x)
    return meter.allocated_peak() - before


def test_a_compiled_block_gives_memory_to_what_it_returns_alone(meter: ForecastMeter) -> None:
    with meter.watching():
        x = torch.empty(4 * MIB, device=CUDA)
        assert peak_of(meter, Chain(), x) == 2 * x.nbytes
        compiled = Chain()
        compiled.compile()
        assert peak_of(meter, compiled, x) == x.nbytes
        assert meter.allocated() == x.nbytes


class Sum(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().sum() + (x * 2) @ x


def test_a_product_in_a_compiled_block_reads_memory(meter: ForecastMeter) -> None:
    with meter.watching():
        x = torch.empty(1024, 1024, device=CUDA)
        x @ x  # the workspace is there from now on
        compiled = Sum()
        compiled.compile()
        # First what is multiplied and the product, then the product and the sum of it and another.
        assert peak_of(meter, compiled, x) == pytest.approx(2 * x.nbytes, abs=2048)
