from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from pytest_loraperf.errors import AdapterError
from pytest_loraperf.lora import AdapterSource, parse_source, read_adapter

LAYER = "transformer_blocks.0.attn.to_q"
NAMES = {
    "DiffSynth": ("{}.lora_A.default.weight", "{}.lora_B.default.weight", "{}.alpha"),
    "DiffSynth plain": ("{}.lora_A.weight", "{}.lora_B.weight", "{}.alpha"),
    "PEFT": (
        "base_model.model.{}.lora_A.weight",
        "base_model.model.{}.lora_B.weight",
        "base_model.model.{}.alpha",
    ),
    "diffusers": ("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight", "transformer.{}.alpha"),
    "diffusers old": ("transformer.{}.lora.down.weight", "transformer.{}.lora.up.weight", "transformer.{}.alpha"),
    "kohya": ("lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight", "lora_unet_{}.alpha"),
    "ComfyUI": (
        "diffusion_model.{}.lora_down.weight",
        "diffusion_model.{}.lora_up.weight",
        "diffusion_model.{}.alpha",
    ),
}


def factors(rank: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    down = torch.randn(rank, 16, generator=generator).to(dtype)
    return down, torch.randn(32, rank, generator=generator).to(dtype)


def write(path: Path, convention: str, rank: int = 4, alpha: float | None = None) -> tuple[Tensor, Tensor]:
    down, up = factors(rank)
    names = NAMES[convention]
    layer = LAYER.replace(".", "_") if convention == "kohya" else LAYER
    tensors = {names[0].format(layer): down, names[1].format(layer): up}
    if alpha is not None:
        tensors[names[2].format(layer)] = torch.tensor(alpha)
    save_file(tensors, path)
    return down, up


@pytest.mark.parametrize("alpha", [None, 4.0, 8.0, 1.0, 3.0])
@pytest.mark.parametrize("convention", NAMES)
def test_each_convention_gives_the_same_delta(tmp_path: Path, convention: str, alpha: float | None) -> None:
    down, up = write(tmp_path / "a.safetensors", convention, alpha=alpha)
    adapter = read_adapter(AdapterSource(tmp_path / "a.safetensors"))
    (layer,) = adapter.layers.values()
    assert adapter.convention == convention.split(" ", maxsplit=1)[0]
    assert layer.name == (LAYER.replace(".", "_") if convention == "kohya" else LAYER)
    assert (layer.rank, layer.shape, layer.flat) == (4, (32, 16), convention == "kohya")
    torch.testing.assert_close(layer.up @ layer.down, up @ down * (1.0 if alpha is None else alpha / 4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.sampled_from(sorted(NAMES)), st.integers(1, 8), st.none() | st.floats(0.125, 64, width=32))
def test_alpha_is_applied_once_for_any_rank(
    tmp_path: Path, convention: str, rank: int, alpha: float | None
) -> None:
    down, up = write(tmp_path / "a.safetensors", convention, rank, alpha)
    (layer,) = read_adapter(AdapterSource(tmp_path / "a.safetensors")).layers.values()
    torch.testing.assert_close(layer.up @ layer.down, up @ down * (1.0 if alpha is None else alpha / rank))


def test_alpha_from_the_metadata_that_diffusers_writes(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {f"transformer.{LAYER}.lora_A.weight": down, f"transformer.{LAYER}.lora_B.weight": up}
    config = {"transformer.lora_alpha": 8, "transformer.r": 4}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(config)})
    (layer,) = read_adapter(AdapterSource(tmp_path / "a.safetensors")).layers.values()
    torch.testing.assert_close(layer.up @ layer.down, up @ down * 2)


def test_tensors_that_are_no_lora_are_named(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up, f"{LAYER}.diff_b": up[:, 0].clone()}
    save_file(tensors, tmp_path / "a.safetensors")
    assert read_adapter(AdapterSource(tmp_path / "a.safetensors")).others == (f"{LAYER}.diff_b",)


def test_alpha_from_the_configuration_that_peft_writes_beside_the_file(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {f"base_model.model.{LAYER}.lora_A.weight": down, f"base_model.model.{LAYER}.lora_B.weight": up}
    path = tmp_path / "adapter_model.safetensors"
    save_file(tensors, path)
    for text, factor in (("{", 1.0), (json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2}), 0.5)):
        (tmp_path / "adapter_config.json").write_text(text)
        (layer,) = read_adapter(AdapterSource(path)).layers.values()
        torch.testing.assert_close(layer.up @ layer.down, up @ down * factor)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "use_rslora": True}))
    with pytest.raises(AdapterError, match=r"it is rank-stabilized \(use_rslora\), which is not supported"):
        read_adapter(AdapterSource(path))


def test_alpha_pattern_goes_before_the_common_alpha(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}
    config = {"lora_alpha": 8, "alpha_pattern": {"attn.to_q": 12}}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(config)})
    (layer,) = read_adapter(AdapterSource(tmp_path / "a.safetensors")).layers.values()
    assert layer.alpha == 12


def test_exact_factors_keep_the_dtype_and_others_are_kept_exact_in_float32(tmp_path: Path) -> None:
    down, up = factors(dtype=torch.bfloat16)
    for alpha, dtype in ((8.0, torch.bfloat16), (3.0, torch.float32)):
        tensors = {
            f"{LAYER}.lora_down.weight": down,
            f"{LAYER}.lora_up.weight": up,
            f"{LAYER}.alpha": torch.tensor(alpha),
        }
        save_file(tensors, tmp_path / "a.safetensors")
        (layer,) = read_adapter(AdapterSource(tmp_path / "a.safetensors")).layers.values()
        assert layer.down.dtype is dtype
        torch.testing.assert_close(layer.down.double(), down.double() * alpha / 4, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("C:/models/a.safetensors", "C:/models/a.safetensors", 1.0),
        ("dir:x/a.safetensors:-1", "dir:x/a.safetensors", -1.0),
        ("folder", "folder", 1.0),
    ],
)
def test_sources(text: str, path: str, scale: float) -> None:
    assert parse_source(text) == AdapterSource(Path(path), scale)


@pytest.mark.parametrize("scale", ["big", "nan", "inf", ""])
def test_scales_that_are_no_numbers(scale: str) -> None:
    with pytest.raises(AdapterError, match=rf"the scale '{scale}' is no number; write a.safetensors:0.8"):
        parse_source(f"a.safetensors:{scale}")


def test_an_empty_source() -> None:
    with pytest.raises(AdapterError, match=r"adapter '': write a file, such as a.safetensors"):
        parse_source("")


def saved(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path)


DOWN, UP = factors()
NAN = UP.clone()
NAN[3, 1] = float("nan")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": DOWN}, "no LoRA keys; it has weight; X.lora_A.weight is expected"),
        ({}, "no LoRA keys; it has none"),
        ({f"{LAYER}.lora_A.weight": DOWN}, f"layer {LAYER} has no up weight; the file is incomplete"),
        ({f"{LAYER}.lora_B.weight": UP}, f"layer {LAYER} has no down weight; the file is incomplete"),
        (
            {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": torch.ones(32, 5)},
            r"down is \(4, 16\) but up is \(32, 5\); their ranks differ, the file is damaged",
        ),
        (
            {f"{LAYER}.lora_A.weight": torch.ones(4, 16, 3, 3), f"{LAYER}.lora_B.weight": UP},
            r"has a \(4, 16, 3, 3\) torch.float32 weight; floating-point matrices are expected",
        ),
        (
            {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": NAN},
            f"NaN or infinite values in {LAYER}; train or save it again",
        ),
        (
            {
                f"{LAYER}.lora_A.weight": DOWN,
                f"{LAYER}.lora_B.weight": UP,
                f"{LAYER}.alpha": torch.tensor(float("inf")),
            },
            "alpha is inf; the file is damaged",
        ),
        ({f"{LAYER}.hada_w1_a": DOWN}, "it is a LoHa file; only LoRA"),
        ({f"{LAYER}.lokr_w1": DOWN}, "it is a LoKr file; only LoRA"),
        (
            {f"{LAYER}.lora_magnitude_vector": DOWN[0].clone(), f"{LAYER}.lora_A.weight": DOWN},
            "it is a DoRA file; only LoRA",
        ),
    ],
)
def test_files_that_are_no_lora(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    saved(tmp_path / "a.safetensors", tensors)
    with pytest.raises(AdapterError, match=message):
        read_adapter(AdapterSource(tmp_path / "a.safetensors"))


def test_one_by_one_convolutions_are_products(tmp_path: Path) -> None:
    tensors = {
        f"{LAYER}.lora_A.weight": DOWN[:, :, None, None].contiguous(),
        f"{LAYER}.lora_B.weight": UP[:, :, None, None].contiguous(),
    }
    saved(tmp_path / "a.safetensors", tensors)
    (layer,) = read_adapter(AdapterSource(tmp_path / "a.safetensors")).layers.values()
    torch.testing.assert_close(layer.up @ layer.down, UP @ DOWN)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_pickles_are_refused_by_their_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save({f"{LAYER}.lora_A.weight": DOWN}, path)
    with pytest.raises(
        AdapterError, match=f"{suffix} files are pickles, which can run code when loaded; convert it: "
    ):
        read_adapter(AdapterSource(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_by_their_content(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.safetensors"
    if zipped:
        torch.save({"a": DOWN}, path)
    else:
        path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(AdapterError, match=r"it holds a pickle, not safetensors; save it with safetensors.torch"):
        read_adapter(AdapterSource(path))


def with_header_of(path: Path, length: int) -> bytes:
    """Write a LoRA whose header is so long, padded by its metadata, and return the file's first bytes."""
    tensors = {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP}
    save_file(tensors, path, metadata={"pad": ""})
    room = length - int.from_bytes(path.read_bytes()[:8], "little")
    save_file(tensors, path, metadata={"pad": "x" * room})
    start = path.read_bytes()[:9]
    assert (int.from_bytes(start[:8], "little"), start[8:]) == (length, b"{")
    return start


LIKE_PICKLES = [0x180, 0x280, 0x380, 0x480, 0x580, 0x680, 0x10280, 0x4B50]


@pytest.mark.parametrize("length", LIKE_PICKLES, ids=hex)
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    assert with_header_of(path, length)[:1] in (b"\x80", b"P")
    (layer,) = read_adapter(AdapterSource(path)).layers.values()
    torch.testing.assert_close(layer.up @ layer.down, UP @ DOWN)


@pytest.mark.parametrize("length", LIKE_PICKLES, ids=hex)
@pytest.mark.parametrize("kept", [9, 200, -1])
def test_and_a_truncated_one_is_called_truncated(tmp_path: Path, length: int, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    with_header_of(path, length)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AdapterError, match=r"damaged or truncated \(.*\); download or save it again"):
        read_adapter(AdapterSource(path))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("value", [{"a": 1}, [], {}, "{" * 300, {"{{{{": b"{" * 70_000}])
def test_a_pickle_of_any_protocol_is_called_one(tmp_path: Path, protocol: int, value: object) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(AdapterError, match="it holds a pickle, not safetensors"):
        read_adapter(AdapterSource(path))


@pytest.mark.parametrize("start", [b"\x80\x01", b"\x80\x06", b"\x80{", b"\x80"])
def test_what_no_protocol_begins_is_damaged(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(start + b"?" * 20)
    with pytest.raises(AdapterError, match="damaged or truncated"):
        read_adapter(AdapterSource(path))


def test_missing_folder_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    for path, message in (
        (tmp_path / "no.safetensors", "cannot be read: No such file or directory; check the path"),
        (tmp_path, "it is a folder; name the .safetensors file inside"),
        (tmp_path / "empty.safetensors", "the file is empty; download or save it again"),
    ):
        with pytest.raises(AdapterError, match=message):
            read_adapter(AdapterSource(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_file_is_never_more_than_an_adapter_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    write(path, "kohya", alpha=2.0)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    cut = data.draw(st.integers(0, len(content) - 1))
    for place in data.draw(st.lists(st.integers(0, header - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[:cut])
    with pytest.raises(AdapterError) as caught:
        read_adapter(AdapterSource(path))
    assert "\n" not in str(caught.value)
