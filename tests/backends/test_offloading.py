"""Offloading as DiffSynth does: what is managed, for which card, and that outputs stay what they are.

That weights really move is seen on a GPU, in tests/gpu.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffsynth.core.vram.layers import AutoTorchModule, AutoWrappedLinear
from diffsynth.models.model_loader import VRAM_MANAGEMENT_MODULE_MAPS

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.latents_only import LatentsOnly
from pytest_loraperf.backends.offloading import HEADROOM, _module_map, offload
from pytest_loraperf.backends.quantization import FP8, quantize
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import Step, StepKind

GB = 2**30
CPU = Device("cpu", "CPU")


def tiny() -> Any:
    return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")


def managed(module: torch.nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, AutoTorchModule)]


@pytest.fixture(scope="module")
def offloaded() -> Any:
    pipe = tiny()
    offload(pipe, 8 * GB)
    return pipe


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", device="cpu", offload="diffsynth"))
    yield session
    session.close()


@pytest.fixture(scope="module")
def bench(session: Session) -> Bench:
    return session.bench()


class TestManagedLayers:
    def test_are_those_of_all_three_models(self, offloaded: Any) -> None:
        for part in (offloaded.dit, offloaded.vae, offloaded.text_encoder):
            assert part.vram_management_enabled
            bare = [
                name
                for name, layer in part.named_modules()
                if isinstance(layer, torch.nn.Linear) and not isinstance(layer, AutoWrappedLinear)
                if not _inside_wrapper(part, name)
            ]
            assert bare == []

    def test_are_counted(self) -> None:
        pipe = tiny()
        effect = offload(pipe, 8 * GB)
        assert effect.layers == effect.total == len(managed(pipe)) > 34

    def test_know_the_card(self, offloaded: Any) -> None:
        limits = {layer.vram_limit for layer in managed(offloaded)}
        assert limits == {8 - HEADROOM / GB}

    def test_wait_in_host_memory_and_compute_in_the_pipelines_dtype(self, offloaded: Any) -> None:
        layers = managed(offloaded)
        assert {layer.state for layer in layers} == {0}
        assert {(layer.offload_device, layer.onload_device) for layer in layers} == {("cpu", "cpu")}
        assert {layer.computation_device for layer in layers} == {offloaded.device}
        assert {layer.computation_dtype for layer in layers} == {torch.bfloat16}

    def test_are_not_moved_on_the_cpu_and_it_says_so(self) -> None:
        pipe = tiny()
        assert offload(pipe, 8 * GB).note == "the weights are in host memory already: no GPU here"
        assert pipe.vram_management_enabled is False

    def test_an_empty_part_is_passed_over(self) -> None:
        pipe = tiny()
        pipe.vae, pipe.text_encoder = LatentsOnly(), None
        effect = offload(pipe, 8 * GB)
        assert effect.layers == len(managed(pipe.dit))
        assert not hasattr(pipe.vae, "vram_management_enabled")

    def test_a_second_card_replaces_the_first(self) -> None:
        pipe = tiny()
        first = offload(pipe, 8 * GB)
        assert offload(pipe, 6 * GB) == first
        assert {layer.vram_limit for layer in managed(pipe)} == {5.5}


class TestAfterQuantizing:
    @pytest.mark.parametrize(("scheme", "computed_in"), [("fp8_storage", torch.bfloat16), ("fp8_compute", FP8)])
    def test_weights_are_moved_in_fp8_and_computed_as_before(self, scheme: str, computed_in: torch.dtype) -> None:
        pipe = tiny()
        quantize(pipe, pipe.dit, scheme, CPU)
        offload(pipe, 6 * GB)
        layers = [layer for layer in managed(pipe.dit) if isinstance(layer, AutoWrappedLinear)]
        assert len(layers) == 34
        assert {layer.weight.dtype for layer in layers} == {FP8}
        assert {(layer.offload_dtype, layer.onload_dtype, layer.preparing_dtype) for layer in layers} == {
            (FP8, FP8, FP8)
        }
        assert {layer.computation_dtype for layer in layers} == {computed_in}


class TestOutputs:
    @pytest.mark.parametrize(
        ("strategy", "resident"),
        [("low_vram", "lora_then_quantize"), ("low_vram_optimized", "fused_then_quantize")],
    )
    def test_are_bit_for_bit_those_of_resident_weights(
        self, session: Session, bench: Bench, strategy: str, resident: str
    ) -> None:
        found, expected = (bench.generate(name, session.request()) for name in (strategy, resident))
        assert torch.equal(found.latents, expected.latents)
        assert found.image is not None
        assert expected.image is not None
        assert found.image.tobytes() == expected.image.tobytes()

    def test_each_strategy_is_for_its_card(self, bench: Bench) -> None:
        for strategy, limit in (("low_vram", 7.5), ("low_vram_optimized", 5.5)):
            assert {layer.vram_limit for layer in managed(bench.arm(strategy).pipeline)} == {limit}

    def test_a_step_without_a_card_is_for_this_one(self) -> None:
        pipe = tiny()
        DiffSynth(Device("cpu", "CPU", total=24 * GB)).apply(pipe, Step(StepKind.OFFLOAD, "diffsynth"), ())
        assert {layer.vram_limit for layer in managed(pipe)} == {23.5}


class TestTable:
    def test_a_model_that_diffsynth_does_not_know_has_its_linears_managed(self) -> None:
        assert _module_map(torch.nn.Sequential(torch.nn.Linear(2, 2))) == {torch.nn.Linear: AutoWrappedLinear}

    def test_classes_that_are_gone_are_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = torch.nn.Sequential()
        kind = f"{type(module).__module__}.Sequential"
        linear = "diffsynth.core.vram.layers.AutoWrappedLinear"
        table = {"torch.nn.Linear": linear, "torch.nn.NoSuchLayer": linear, "no_such_package.Layer": linear}
        monkeypatch.setitem(VRAM_MANAGEMENT_MODULE_MAPS, kind, table)
        assert _module_map(module) == {torch.nn.Linear: AutoWrappedLinear}

    def test_diffsynths_own_is_used_where_there_is_one(self) -> None:
        names = {source.__name__ for source in _module_map(tiny().dit)}
        assert {"Linear", "RMSNorm"} <= names


def _inside_wrapper(part: torch.nn.Module, name: str) -> bool:
    """Whether the layer is held by a wrapper of DiffSynth's that moves it as a whole."""
    names = name.split(".")
    above = (".".join(names[:depth]) for depth in range(1, len(names)))
    return any(isinstance(part.get_submodule(path), AutoTorchModule) for path in above)
