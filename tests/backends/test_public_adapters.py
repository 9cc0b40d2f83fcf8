"""FLUX LoRAs as they are published: by the names of diffusers or of kohya's scripts, whatever the library's are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffsynth.utils.lora.flux import FluxLoRAConverter, FluxLoRALoader
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.errors import AdapterError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import AdapterSource, Match, linear_shapes, lora_state_dict, match_adapter, read_adapter
from pytest_loraperf.models import parse_model
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

CPU = Device("cpu", "CPU")
RANK = 4


@pytest.fixture(scope="module")
def pipe() -> Any:
    return DiffSynth(CPU).build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=False)


def factors(shapes: dict[str, tuple[int, int]], names: list[str]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in names:
        rows, columns = shapes[name]
        found[f"{name}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
        found[f"{name}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator)
    return found


def deltas(match: Match) -> dict[str, Tensor]:
    return {name: layer.up.float() @ layer.down.float() for name, layer in match.layers.items()}


def matched(pipe: Any, path: Path) -> Match:
    backend = DiffSynth(CPU)
    rename = lambda tensors: backend.lora_names(pipe, tensors)  # noqa: E731 - as a bench gives it
    return match_adapter(read_adapter(AdapterSource(path)), backend.lora_shapes(pipe), rename)


def test_kohyas_are_what_they_were_trained_as(pipe: Any, tmp_path: Path) -> None:
    backend = DiffSynth(CPU)
    ours = factors(backend.lora_shapes(pipe), backend.lora_targets(pipe))
    save_file(ours, tmp_path / "ours.safetensors")
    theirs = FluxLoRAConverter.align_to_opensource_format(ours, alpha=2.0 * RANK)
    assert all(key.startswith("lora_unet_") for key in theirs)
    text = {f"lora_te1_text_model_q_proj.lora_{part}.weight": torch.ones(RANK, RANK) for part in ("down", "up")}
    save_file({key: tensor.clone() for key, tensor in (text | theirs).items()}, tmp_path / "kohya.safetensors")

    there = matched(pipe, tmp_path / "kohya.safetensors")
    assert there.unmatched == ("lora_te1_text_model_q_proj",)
    found, wanted = deltas(there), deltas(matched(pipe, tmp_path / "ours.safetensors"))
    assert len(found) == len(theirs) // 3 > 10
    for name, delta in found.items():
        torch.testing.assert_close(delta, 2 * wanted[name])


@pytest.fixture
def diffusers_file(tmp_path: Path) -> Path:
    """A file of all the layers of a block that diffusers has and DiffSynth's conversion knows."""
    backend = Diffusers(CPU)
    there = backend.build(parse_model("synthetic:flux:tiny"), CPU, on_cpu=False)
    names = backend.lora_targets(there)
    state = {f"transformer.{key}": each for key, each in factors(backend.lora_shapes(there), names).items()}
    path = tmp_path / "diffusers.safetensors"
    save_file(state, path)
    return path


def test_those_of_diffusers_are_what_diffsynth_makes_of_them(pipe: Any, diffusers_file: Path) -> None:
    match = matched(pipe, diffusers_file)
    assert match.left_out is None
    assert {"blocks.0.attn.a_to_qkv", "single_blocks.0.to_qkv_mlp"} <= set(match.matched)
    wanted = FluxLoRALoader().convert_state_dict(load_file(diffusers_file))
    assert len(wanted) == 2 * len(match.matched)
    for name, delta in deltas(match).items():
        torch.testing.assert_close(delta, wanted[f"{name}.lora_B.weight"] @ wanted[f"{name}.lora_A.weight"])


def test_and_a_script_reads_them_so_too(pipe: Any, diffusers_file: Path) -> None:
    convert = pipe.lora_loader().convert_state_dict
    found = lora_state_dict(diffusers_file, pipe.dit, torch.float32, "cpu", convert)
    wanted = matched(pipe, diffusers_file).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in found.items())


def test_a_bench_attaches_fuses_and_forecasts_them(diffusers_file: Path) -> None:
    named = Settings(model="synthetic:flux:tiny", device="cpu", adapters=(str(diffusers_file),))
    with_values = Session(named)
    bench = with_values.bench()
    for strategy in ("standard_lora", "fused", "low_vram_optimized"):
        gains = bench.arm(strategy).gains
        assert len(gains) > 10
        assert min(gains.values()) > 0.9
    with_values.close()

    session = Session(named._replace(forecast=True))
    found = session.forecast("standard_lora", session.model(), named.adapters, session.request())
    assert found.error is None
    session.close()


def test_what_no_conversion_knows_is_refused_by_its_own_names(pipe: Any, tmp_path: Path) -> None:
    state = factors({"double_blocks.0.img_attn.qkv": (64, 64)}, ["double_blocks.0.img_attn.qkv"])
    save_file(state, tmp_path / "bfl.safetensors")
    with pytest.raises(
        AdapterError, match=r"no layer of the model is matched; the adapter has double_blocks\.0\.img_attn"
    ):
        matched(pipe, tmp_path / "bfl.safetensors")


def test_a_conversion_that_fails_leaves_the_names_as_they_are(tmp_path: Path) -> None:
    save_file(factors({"a": (4, 4), "b": (4, 4)}, ["a", "b"]), tmp_path / "a.safetensors")

    def broken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        raise KeyError(*tensors)

    match = match_adapter(read_adapter(AdapterSource(tmp_path / "a.safetensors")), {"a": (4, 4)}, broken)
    assert (match.matched, match.unmatched) == (("a",), ("b",))


def test_diffusers_reads_kohyas(tmp_path: Path) -> None:
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    shapes = linear_shapes(transformer)
    fused = {
        "lora_unet_double_blocks_0_img_attn_qkv": (3 * 3072, 3072),
        "lora_unet_single_blocks_0_linear1": (3 * 3072 + 4 * 3072, 3072),
    }
    state = factors(fused, list(fused))
    kohya = {"lora_A": "lora_down", "lora_B": "lora_up"}
    renamed = {key.replace(part, kohya[part]): t for key, t in state.items() for part in kohya if part in key}
    save_file(renamed, tmp_path / "kohya.safetensors")

    adapter = read_adapter(AdapterSource(tmp_path / "kohya.safetensors"))
    match = match_adapter(adapter, shapes, FluxPipeline.lora_state_dict)
    assert match.left_out is None
    parts = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    whole = adapter.layers["double_blocks_0_img_attn_qkv"]
    torch.testing.assert_close(torch.cat([deltas(match)[name] for name in parts]), whole.up @ whole.down)
    assert len(match.matched) == 3 + 4
