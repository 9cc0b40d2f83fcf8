"""The effect gain on layers of which it is known what became of the LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pytest_loraperf.lora.adapter import Adapter, AdapterSource, LoraLayer
from pytest_loraperf.lora.effect import EffectProbe, probe
from pytest_loraperf.lora.match import Match

WIDTH, RANK = 1024, 64


def match(strength: float, scale: float = 1.0, seed: int = 1) -> Match:
    """An adapter whose ‖ΔW‖ is so much of ‖W‖, W of variance 1/width."""
    draw = torch.Generator().manual_seed(seed)
    down, up = torch.randn(RANK, WIDTH, generator=draw), torch.randn(WIDTH, RANK, generator=draw)
    up *= strength * WIDTH**0.5 / float((up @ down).norm())
    adapter = Adapter(
        AdapterSource(Path("a.safetensors"), scale), "diffsynth", {"layer": LoraLayer("layer", down, up)}
    )
    return Match(adapter, adapter.layers, (), 1)


def linear(weight: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(WIDTH, WIDTH)
    layer.weight = torch.nn.Parameter(weight)
    return layer


@pytest.fixture
def base() -> torch.nn.Linear:
    draw = torch.Generator().manual_seed(0)
    layer = linear((torch.randn(WIDTH, WIDTH, generator=draw) / WIDTH**0.5).bfloat16())
    layer.bias = torch.nn.Parameter(torch.randn(WIDTH, generator=draw).bfloat16())
    return layer


def gain(base: torch.nn.Linear, weight: torch.Tensor, *matches: Match) -> float:
    effect = EffectProbe(matches)
    effect.take_base(lambda _: base, "cpu")
    changed = linear(weight.bfloat16())
    changed.bias = base.bias
    return effect.gains(lambda _: changed, "cpu", torch.bfloat16)["layer"]


def delta(found: Match) -> torch.Tensor:
    layer = found.layers["layer"]
    return found.scale * layer.up @ layer.down


@pytest.mark.parametrize("strength", [0.015, 0.07, 0.5])
def test_fused_is_there(base: torch.nn.Linear, strength: float) -> None:
    found = match(strength)
    assert gain(base, base.weight.float() + delta(found), found) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("part", "expected"), [(0.0, 0.0), (0.5, 0.5), (2.0, 2.0)])
def test_a_part_is_told_as_a_part(base: torch.nn.Linear, part: float, expected: float) -> None:
    found = match(0.1)
    assert gain(base, base.weight.float() + part * delta(found), found) == pytest.approx(expected, abs=0.02)


def test_scales_and_stacked_adapters_are_intended_together(base: torch.nn.Linear) -> None:
    first, second = match(0.1, 0.5), match(0.1, -1.0, seed=2)
    assert gain(base, base.weight.float() + delta(first) + delta(second), first, second) == pytest.approx(
        1, abs=0.02
    )
    assert gain(base, base.weight.float() + delta(first), first, second) < 0.5


def quantized(weight: torch.Tensor) -> torch.Tensor:
    return weight.bfloat16().to(torch.float8_e4m3fn).float()


def test_quantize_then_fuse_loses_a_weak_adapter_and_fuse_then_quantize_keeps_it(base: torch.nn.Linear) -> None:
    found = match(0.005)
    wrong = quantized(quantized(base.weight.float()) + delta(found))
    right = quantized(base.weight.float() + delta(found))
    assert gain(base, wrong, found) < 0.1
    assert gain(base, right, found) == pytest.approx(1, abs=0.1)


def test_an_adapter_of_zeros_intends_nothing(base: torch.nn.Linear) -> None:
    effect = EffectProbe([match(0.0)])
    effect.take_base(lambda _: base, "cpu")
    assert effect.gains(lambda _: base, "cpu", torch.bfloat16) == {}


def test_the_probe_is_the_layers_own() -> None:
    assert torch.equal(probe("a", 4096, 8, "cpu"), probe("a", 4096, 8, "cpu"))
    assert not torch.equal(probe("a", 4096, 8, "cpu"), probe("b", 4096, 8, "cpu"))


@pytest.mark.parametrize(("outputs", "rows"), [(64, 256), (512, 128), (3072, 16), (18432, 16)])
def test_small_layers_are_probed_by_more_rows(outputs: int, rows: int) -> None:
    assert probe("a", outputs, 8, "cpu").shape == (rows, 8)
