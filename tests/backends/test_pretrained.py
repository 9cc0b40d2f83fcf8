"""Real files in the hub's layout, as small as the tiny synthetic pipeline that they are saved from.

DiffSynth knows a file by a hash of its keys and shapes, so the tiny files are added to its table; all else, from
finding the files to the last denoising step, is DiffSynth's own.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffsynth.core.loader import hash_model_file
from PIL import Image
from safetensors.torch import save_file

from pytest_loraperf.backends.pipelines.qwen_image import dit, tiny_vae
from pytest_loraperf.backends.pretrained import LONGEST_REASON, build_pretrained
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.backends.synthetic_sizes import TINY
from pytest_loraperf.backends.synthetic_text import tiny_text_encoder
from pytest_loraperf.backends.tiny_text import tiny_tokenizer
from pytest_loraperf.errors import ModelError
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.models import Synthetic
from pytest_loraperf.options import Settings
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.session import Session

SHARDS = tuple(f"transformer/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2))
TEXT_ENCODER = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
BASE = "Qwen/Qwen-Image"
SCRIPTS = Path(__file__).parents[2] / "examples/qwen_image/model_inference"


def tiny_dit() -> Any:
    return dit("tiny")


def tiny_encoder() -> Any:
    return tiny_text_encoder(tiny_tokenizer(), TINY.text_width)


@pytest.fixture(scope="module")
def original() -> Any:
    return build_synthetic("tiny", seed=3, device="cpu", weights_on="cpu")


@pytest.fixture(scope="module")
def saved(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline in the layout of Qwen/Qwen-Image-Edit on the hub."""
    folder = tmp_path_factory.mktemp("saved")
    dit = original.dit.state_dict()
    names = sorted(dit)
    for shard, keys in zip(SHARDS, (names[::2], names[1::2]), strict=True):
        _save(folder / shard, {key: dit[key] for key in keys})
    _save(folder / TEXT_ENCODER, original.text_encoder.state_dict())
    _save(folder / VAE, original.vae.state_dict())
    original.tokenizer.save_pretrained(folder / "tokenizer")
    original.processor.save_pretrained(folder / "processor")
    return folder


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


@pytest.fixture(autouse=True)
def _known_to_diffsynth(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, tuple[list[str], str]] = {
        "qwen_image_dit": (list(SHARDS), tiny_dit.__name__),
        "qwen_image_text_encoder": ([TEXT_ENCODER], tiny_encoder.__name__),
        "qwen_image_vae": ([VAE], tiny_vae.__name__),
    }
    table = [
        {
            "model_hash": hash_model_file([str(saved / name) for name in names]),
            "model_name": model,
            "model_class": f"{__name__}.{factory}",
        }
        for model, (names, factory) in files.items()
    ]
    monkeypatch.setattr("diffsynth.models.model_loader.MODEL_CONFIGS", table)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What DiffSynth has downloaded: its models folder, empty, and no download allowed."""
    monkeypatch.setenv("DIFFSYNTH_MODEL_BASE_PATH", str(tmp_path / "models"))
    monkeypatch.setenv("DIFFSYNTH_SKIP_DOWNLOAD", "True")
    return tmp_path / "models"


def put(saved: Path, hub: Path, model: str, *parts: str) -> None:
    for part in parts:
        shutil.copytree(saved / part, hub / model / part)


def load(source: str | Path, **options: Any) -> Any:
    return build_pretrained(str(source), **{"device": "cpu", "weights_on": "cpu", **options})


def pixels(pipe: Any, **request: Any) -> bytes:
    image = pipe(
        "a ghost",
        cfg_scale=1.0,
        height=64,
        width=64,
        seed=0,
        num_inference_steps=4,
        edit_image_auto_resize=False,
        progress_bar_cmd=lambda steps: steps,
        **request,
    )
    return np.asarray(image).tobytes()


RED = Image.new("RGB", (64, 64), (255, 0, 0))


def message(source: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestFolder:
    def test_gives_the_very_weights_that_were_saved(self, original: Any, saved: Path) -> None:
        loaded = load(saved)
        for part in ("dit", "vae", "text_encoder"):
            expected, found = getattr(original, part), getattr(loaded, part)
            tensors = dict(found.named_parameters()) | dict(found.named_buffers())
            for name, tensor in (*expected.named_parameters(), *expected.named_buffers()):
                assert tensors[name].dtype is tensor.dtype, f"{part}.{name}"
                assert torch.equal(tensors[name], tensor), f"{part}.{name}"

    def test_generates_bit_for_bit_what_was_saved(self, original: Any, saved: Path) -> None:
        loaded = load(saved)
        assert pixels(loaded) == pixels(original)
        assert pixels(loaded, edit_image=RED) == pixels(original, edit_image=RED)
        assert pixels(loaded, edit_image=RED) != pixels(loaded)

    def test_takes_strategies_as_what_was_saved_does(self, saved: Path) -> None:
        session = Session(Settings(device="cpu"))
        found, expected = (
            session.bench(model).generate("fused_then_quantize", TINY_REQUEST).latents
            for model in (f"pretrained:{saved}", Synthetic("tiny", seed=3))
        )
        session.close()
        assert torch.equal(found, expected)

    def test_holds_its_gates(self, pytester: pytest.Pytester, saved: Path) -> None:
        pytester.makepyfile("""
            import pytest

            @pytest.mark.lora_strategy("fused", "fused_then_quantize", "low_vram_optimized")
            @pytest.mark.output_equivalent(to="standard_lora")
            @pytest.mark.lora_effect(min_gain=0.9)
            @pytest.mark.vram_budget("1GB")
            def test_holds(lora_pipeline):
                assert lora_pipeline(height=64, width=64).image.size == (64, 64)
        """)
        result = pytester.runpytest(
            "-p", "no:asyncio", "--loraperf-device=cpu", f"--loraperf-model=pretrained:{saved}"
        )
        result.assert_outcomes(passed=3)
        result.stdout.fnmatch_lines([f"pretrained:{saved} on CPU (cpu), *"])

    @pytest.mark.parametrize("script", ["Quantized", "LowVRAM-Optimized"])
    def test_is_what_the_seeds_scripts_take(
        self, original: Any, saved: Path, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [name for name in linear_shapes(original.dit) if "transformer_blocks" in name]
        write_synthetic_adapter(tmp_path / "a.safetensors", weight_norms(original.dit, names))
        RED.save(tmp_path / "in.png")
        path = SCRIPTS / f"Qwen-Image-Edit-LoRA-Ghost-{script}.py"
        given = ["--model", str(saved), "--lora", "a.safetensors", "--image", "in.png", "--device", "cpu"]
        size = ["--height", "64", "--width", "64", "--steps", "2", "--cfg", "1"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(SCRIPTS))
        monkeypatch.setattr("sys.argv", [path.name, *given, *size])
        monkeypatch.setattr("sys.excepthook", sys.excepthook)
        pipe = runpy.run_path(str(path))["pipe"]
        assert pipe.processor is not None
        with Image.open("ghost.png") as image:
            assert image.size == (64, 64)

    def test_without_a_processor_is_no_edit_model(self, original: Any, folder: Path) -> None:
        shutil.rmtree(folder / "processor")
        loaded = load(folder)
        assert loaded.processor is None
        assert pixels(loaded) == pixels(original)

    def test_may_be_named_from_home(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(saved.parent))
        assert load(f"~/{saved.name}").dit is not None

    def test_weights_lie_apart_from_where_it_computes(self, saved: Path) -> None:
        # No CUDA call is made here: DiffSynth only notes where it will compute.
        loaded = load(saved, device="cuda", weights_on="cpu")
        assert (loaded.device, loaded.device_type) == ("cuda", "cuda")
        assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}

    def test_weights_have_the_dtype(self, saved: Path) -> None:
        loaded = load(saved, dtype=torch.float32)
        assert loaded.torch_dtype is torch.float32
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}

    @pytest.mark.parametrize(
        ("part", "missing"),
        [
            ("transformer", "transformer/diffusion_pytorch_model*.safetensors"),
            ("text_encoder", "text_encoder/model*.safetensors"),
            ("vae", "vae/diffusion_pytorch_model.safetensors"),
            ("tokenizer", "tokenizer/"),
        ],
    )
    def test_names_what_is_missing(self, folder: Path, part: str, missing: str) -> None:
        shutil.rmtree(folder / part)
        assert message(folder) == (
            f"model folder {folder}: {missing} is missing; lay it out as Qwen/Qwen-Image is on the hub"
        )

    def test_says_which_part_is_of_another_model(self, folder: Path) -> None:
        for shard in SHARDS:
            (folder / shard).unlink()
        shutil.copy(folder / VAE, folder / SHARDS[0])
        assert message(folder) == (
            f"model {str(folder)!r}: transformer/diffusion_pytorch_model*.safetensors is of another model; "
            "a Qwen-Image model is needed"
        )

    def test_says_that_diffsynth_knows_no_such_file(self, folder: Path) -> None:
        save_file({"weight": torch.zeros(2)}, folder / VAE)
        assert message(folder).startswith(
            f"model {str(folder)!r} cannot be loaded: ValueError: Cannot detect the model type."
        )

    def test_says_that_a_file_is_broken(self, folder: Path) -> None:
        (folder / VAE).write_bytes(b"no safetensors")
        assert message(folder).startswith(f"model {str(folder)!r} cannot be loaded: SafetensorError: ")


class TestHubId:
    def test_takes_all_from_one_repository(self, original: Any, saved: Path, hub: Path) -> None:
        put(saved, hub, BASE, "transformer", "text_encoder", "vae", "tokenizer")
        loaded = load(BASE)
        assert loaded.processor is None
        assert pixels(loaded) == pixels(original)

    @pytest.mark.parametrize(
        "source", ["Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2511"]
    )
    def test_takes_edit_models_from_where_diffsynths_examples_do(
        self, original: Any, saved: Path, hub: Path, source: str
    ) -> None:
        put(saved, hub, BASE, "text_encoder", "vae", "tokenizer")
        put(saved, hub, "Qwen/Qwen-Image-Edit", "processor")
        put(saved, hub, source, "transformer")
        loaded = load(source)
        assert pixels(loaded, edit_image=RED) == pixels(original, edit_image=RED)

    def test_names_what_the_hub_did_not_give(self, saved: Path, hub: Path) -> None:
        put(saved, hub, BASE, "transformer", "text_encoder", "vae", "tokenizer")
        assert message("Qwen/Qwen-Image-Edit") == (
            "model 'Qwen/Qwen-Image-Edit': Qwen/Qwen-Image-Edit gave no "
            f"transformer/diffusion_pytorch_model*.safetensors in {hub}/Qwen/Qwen-Image-Edit; "
            "name a Qwen-Image repository, and allow downloads (DIFFSYNTH_SKIP_DOWNLOAD)"
        )

    @pytest.mark.usefixtures("hub")
    def test_says_why_a_download_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise ConnectionError("modelscope.cn cannot be reached\n  " + "x" * 1000)

        monkeypatch.setenv("DIFFSYNTH_SKIP_DOWNLOAD", "False")
        monkeypatch.setattr("diffsynth.core.loader.config.snapshot_download", unreachable)
        start = f"model {BASE!r} cannot be loaded: ConnectionError: "
        reason = message(BASE).removeprefix(start)
        assert reason.startswith("modelscope.cn cannot be reached xxx")
        assert len(reason) == LONGEST_REASON
