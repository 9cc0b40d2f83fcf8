"""What a generation computes and moves, against hand counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import pytest_loraperf
from pytest_loraperf.backends.generation import generate
from pytest_loraperf.limits import Counts
from pytest_loraperf.measure.operations import OperationCounter
from pytest_loraperf.request import TINY_REQUEST

BF16 = torch.bfloat16


def counted(call: Any) -> Counts:
    counter = OperationCounter()
    with torch.no_grad(), counter.counting():
        call()
    return counter.counts


@pytest.mark.parametrize("dtype", [BF16, torch.float32])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_linear_is_2mnk_and_its_weights_once(mode: Any, bias: bool, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(32, 64, bias=bias, dtype=dtype)
    counter = OperationCounter()
    with mode(), counter.counting():
        layer(torch.ones(2, 10, 32, dtype=dtype))
    name = str(dtype).removeprefix("torch.")
    assert counter.counts == Counts(
        operations={name: 2 * 20 * 32 * 64}, bytes=(32 * 64 + 64 * bias) * dtype.itemsize
    )


def test_weights_are_read_once_a_step_however_often_they_are_called() -> None:
    layer, table = torch.nn.Linear(8, 4, bias=False, dtype=BF16), torch.nn.Embedding(1000, 8, dtype=BF16)
    counter = OperationCounter()
    with torch.no_grad(), counter.counting():
        for _ in range(3):
            counter.tick()
            for _ in range(2):
                layer(table(torch.tensor([1])))
    assert counter.counts.bytes == 3 * 8 * 4 * 2  # of an embedding, only some rows are read
    assert counter.counts.operations == {"bfloat16": 3 * 2 * 2 * 8 * 4}


def test_attention_convolution_and_vectors() -> None:
    heads = torch.randn(1, 2, 10, 32, dtype=BF16)
    assert counted(lambda: functional.scaled_dot_product_attention(heads, heads, heads)).operations == {
        "bfloat16": 2 * (2 * 2 * 10 * 10 * 32)
    }
    image, kernel = torch.ones(1, 3, 8, 8), torch.ones(5, 3, 3, 3)
    assert counted(lambda: functional.conv2d(image, kernel)).operations == {"float32": 2 * 6 * 6 * 5 * 3 * 3 * 3}
    assert counted(lambda: torch.ones(6, 7) @ torch.ones(7)).operations == {"float32": 2 * 6 * 7}


def test_a_product_in_fp8_is_of_fp8() -> None:
    one = torch.ones(())
    left, right = torch.ones(16, 32).to(torch.float8_e4m3fn), torch.ones(48, 32).to(torch.float8_e4m3fn)
    found = counted(lambda: torch._scaled_mm(left, right.t(), scale_a=one, scale_b=one, out_dtype=BF16))
    assert found.operations == {"float8_e4m3fn": 2 * 16 * 32 * 48}


def test_casts_norms_and_activations_count_nothing() -> None:
    values = torch.ones(4, 8)
    assert counted(lambda: functional.gelu(functional.layer_norm(values.to(BF16), (8,))).float()) == Counts()


@pytest.fixture
def foreign_product() -> Iterator[Any]:
    with torch.library._scoped_library("loraperf_test", "FRAGMENT") as library:
        library.define("attend(Tensor x) -> Tensor")
        library.impl("attend", torch.clone, "CPU")
        yield torch.ops.loraperf_test.attend


def test_what_has_no_formula_is_named(foreign_product: Any) -> None:
    found = counted(lambda: torch.dot(foreign_product(torch.ones(4)), torch.ones(4)))
    assert found == Counts(not_counted=("loraperf_test::attend", "aten::dot"))


@pytest.mark.parametrize("call", ["linear", "cumulative", "upsampling"])
def test_what_only_sounds_like_a_product_is_not_named(call: str) -> None:
    values = torch.ones(1, 1, 4)
    calls = {
        "linear": lambda: functional.linear(values, torch.ones(4, 4)),
        "cumulative": lambda: values.cummax(-1),
        "upsampling": lambda: functional.interpolate(values, scale_factor=2, mode="linear"),
    }
    assert counted(calls[call]).not_counted == ()


def test_copies_from_host_memory_cross_the_bus_and_others_do_not() -> None:
    with FakeTensorMode():
        weights, slot = torch.empty(100, dtype=BF16), torch.empty(100, dtype=BF16, device="cuda")

        def copies() -> None:
            slot.copy_(weights, non_blocking=True)
            weights.to("cuda")
            weights.to("cuda", torch.float32)  # which side widens it is not known
            slot.clone()
            slot.cpu()
            weights.float()

        assert counted(copies) == Counts(bus_bytes=3 * 200)


def test_what_is_compiled_counts_the_same_and_stays_compiled() -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        compiled.append(1)
        return graph.forward

    layers = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 8))
    values = torch.ones(3, 8)
    plain = counted(lambda: layers(values))
    layers.compile(backend=backend)
    with torch.no_grad():
        layers(values)
    assert compiled == [1]
    assert counted(lambda: layers(values)) == plain
    with torch.no_grad():
        layers(values)
    assert compiled == [1]


def test_nothing_is_left_behind_when_the_call_raises() -> None:
    counter, layer = OperationCounter(), torch.nn.Linear(4, 4)

    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError), counter.counting():
        fail()
    layer(torch.ones(1, 4))
    assert counter.counts == Counts()


def test_a_step_of_the_tiny_model_is_what_a_hand_count_says() -> None:
    pipe = pytest_loraperf.build_synthetic("tiny", device="cpu")
    texts: list[int] = []
    pipe.dit.txt_in.register_forward_pre_hook(lambda _, args: texts.append(args[0].shape[1]))

    def operations(steps: int) -> Counts:
        counter = OperationCounter()
        with counter.counting():
            generate(pipe, TINY_REQUEST.with_changes(steps=steps), counter.tick)
        return counter.counts

    two, four = operations(2), operations(4)
    width, image, text = 64, (64 // 16) ** 2, texts[0]
    tokens = image + text
    # Of each token q, k, v and out, and an MLP four times as wide; of one vector each, six modulations of both halves.
    block = 2 * tokens * 12 * width**2 + 2 * (2 * width * 6 * width) + 4 * tokens**2 * width
    ends = 2 * image * width**2 + 2 * text * width**2 + 2 * image * width**2
    time = 2 * 256 * width + 2 * width**2 + 2 * width * 2 * width
    assert four.operations["bfloat16"] - two.operations["bfloat16"] == 2 * (2 * block + ends + time)
    weights = sum(each.nbytes for each in pipe.dit.parameters())
    assert four.bytes - two.bytes == 2 * weights
    assert (four.bus_bytes, four.not_counted) == (0, ())
