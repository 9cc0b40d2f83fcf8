from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffsynth.models.qwen_image_dit import QwenImageTransformerBlock
from diffsynth.utils.lora import GeneralLoRALoader
from safetensors.torch import load_file, save_file

from pytest_loraperf.errors import AdapterError
from pytest_loraperf.lora import (
    AdapterSource,
    linear_shapes,
    match_adapter,
    read_adapter,
    weight_norms,
    write_synthetic_adapter,
)

PREFIXES = {
    "DiffSynth": ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    "diffusers": ("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight"),
    "kohya": ("lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight"),
    "ComfyUI": ("diffusion_model.{}.lora_down.weight", "diffusion_model.{}.lora_up.weight"),
}


@pytest.fixture
def block() -> torch.nn.Module:
    torch.manual_seed(0)
    block: torch.nn.Module = QwenImageTransformerBlock(dim=64, num_attention_heads=2, attention_head_dim=32)
    return block


def synthetic(path: Path, module: torch.nn.Module, **options: float) -> AdapterSource:
    norms = weight_norms(module, linear_shapes(module))
    return AdapterSource(write_synthetic_adapter(path / "a.safetensors", norms, rank=8, **options))  # type: ignore[arg-type]  # numbers each


def renamed(source: AdapterSource, convention: str) -> AdapterSource:
    tensors = {}
    for key, tensor in load_file(source.path).items():
        name, letter = key.split(".lora_")[0], key.split(".lora_")[1][0]
        flat = name.replace(".", "_") if convention == "kohya" else name
        tensors[PREFIXES[convention]["AB".index(letter)].format(flat)] = tensor
    path = source.path.with_name(f"{convention}.safetensors")
    save_file(tensors, path)
    return AdapterSource(path)


@pytest.mark.parametrize("convention", PREFIXES)
def test_every_convention_matches_a_real_block(tmp_path: Path, block: torch.nn.Module, convention: str) -> None:
    source = renamed(synthetic(tmp_path, block), convention)
    match = match_adapter(read_adapter(source), linear_shapes(block))
    assert len(match.matched) == match.total == 14
    assert match.unmatched == ()
    assert match.left_out is None
    assert set(match.matched) == set(linear_shapes(block))
    assert set(match.state_dict()) == {f"{n}.lora_{ab}.weight" for n in linear_shapes(block) for ab in "AB"}


def test_fusing_it_is_what_diffsynth_does_with_the_file(tmp_path: Path, block: torch.nn.Module) -> None:
    source = synthetic(tmp_path, block)
    match = match_adapter(read_adapter(source), linear_shapes(block))
    ours, theirs = (
        QwenImageTransformerBlock(dim=64, num_attention_heads=2, attention_head_dim=32) for _ in range(2)
    )
    for module, state in ((ours, match.state_dict()), (theirs, load_file(source.path))):
        module.load_state_dict(block.state_dict())
        GeneralLoRALoader().fuse_lora_to_base_model(module, state, alpha=0.5)
    changed = 0
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        changed += int(not torch.equal(a, block.get_parameter(name)))
    assert changed == 14


def test_strength_is_the_norm_of_the_delta(tmp_path: Path, block: torch.nn.Module) -> None:
    adapter = read_adapter(synthetic(tmp_path, block, strength=0.05))
    for name, layer in adapter.layers.items():
        delta = (layer.up.double() @ layer.down.double()).norm()
        weight = block.get_submodule(name).get_parameter("weight").detach()
        assert float(delta / weight.double().norm()) == pytest.approx(0.05, rel=0.01)


def test_synthetic_is_seeded_by_layer(tmp_path: Path, block: torch.nn.Module) -> None:
    norms = weight_norms(block, linear_shapes(block))
    backwards = dict(reversed(norms.items()))
    first = load_file(write_synthetic_adapter(tmp_path / "a.safetensors", norms))
    again = load_file(write_synthetic_adapter(tmp_path / "b.safetensors", backwards))
    other = load_file(write_synthetic_adapter(tmp_path / "c.safetensors", norms, seed=1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_part_of_the_layers_is_matched_and_the_rest_named(tmp_path: Path, block: torch.nn.Module) -> None:
    adapter = read_adapter(synthetic(tmp_path, block))
    shapes = linear_shapes(block)
    shapes.pop("attn.to_q")
    match = match_adapter(adapter, shapes)
    assert (len(match.matched), match.unmatched, match.total) == (13, ("attn.to_q",), 13)
    path = adapter.source.path
    assert match.left_out == f"adapter {path}: 1 of its 14 layers fit none of the model's: attn.to_q"
    both = replace(match, adapter=replace(match.adapter, others=("attn.to_q.diff_b",)))
    assert both.left_out == f"{match.left_out}; 1 of its tensors are no LoRA and are not used: attn.to_q.diff_b"


def test_no_match_shows_keys_of_both_sides(tmp_path: Path, block: torch.nn.Module) -> None:
    adapter = read_adapter(synthetic(tmp_path, block))
    with pytest.raises(
        AdapterError,
        match=r"no layer of the model is matched; the adapter has attn.add_k_proj, attn.add_q_proj, "
        r"attn.add_v_proj and 11 more; the model has down.0, down.1$",
    ):
        match_adapter(adapter, {"down.0": (4, 4), "down.1": (4, 4)})


def test_another_architecture_shows_the_shapes(tmp_path: Path, block: torch.nn.Module) -> None:
    adapter = read_adapter(synthetic(tmp_path, block))
    wide = {name: (2 * out, size) for name, (out, size) in linear_shapes(block).items()}
    with pytest.raises(
        AdapterError,
        match=r"made for another architecture, 14 of 14 layers differ in shape \(out, in\): "
        r"attn.add_k_proj is \(64, 64\) in the adapter, \(128, 64\) in the model; ",
    ):
        match_adapter(adapter, wide)


def test_a_flat_name_that_fits_twice_is_refused(tmp_path: Path) -> None:
    save_file(
        {"lora_unet_a_b.lora_down.weight": torch.ones(1, 4), "lora_unet_a_b.lora_up.weight": torch.ones(4, 1)},
        tmp_path / "a.safetensors",
    )
    adapter = read_adapter(AdapterSource(tmp_path / "a.safetensors"))
    with pytest.raises(AdapterError, match=r"a_b fits several layers: a.b, a_b"):
        match_adapter(adapter, {"a.b": (4, 4), "a_b": (4, 4)})


def test_a_wrapped_linear_counts_once() -> None:
    class Wrapper(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 8)
            self.module = torch.nn.Linear(4, 8)

    assert linear_shapes(torch.nn.ModuleDict({"a": Wrapper(), "b": torch.nn.Linear(2, 3)})) == {
        "a": (8, 4),
        "b": (3, 2),
    }
