"""The code to paste: each strategy's is run as it stands, and gives the very image that was measured."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffsynth.core import ModelConfig
from diffsynth.pipelines.qwen_image import QwenImagePipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from pytest_loraperf.advise.code import Lora, Setting, code_for
from pytest_loraperf.backends.pretrained import _local, _remote
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.models import Pretrained, Synthetic, UserBuilt
from pytest_loraperf.options import Settings
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.registry import PIPELINES
from pytest_loraperf.request import TINY_REQUEST
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import (
    ATTACH,
    COMPILE,
    FUSE,
    NO_LORA,
    QUANTIZE,
    SHIPPED,
    Step,
    StepKind,
    Strategy,
    offload,
)

RIGHT = [strategy for strategy in (*SHIPPED, NO_LORA) if not strategy.mistake]
MISTAKES = [strategy for strategy in SHIPPED if strategy.mistake]
SCHEMES = ("fp8_storage", "fp8_compute", "torchao_fp8_w8a8")
REQUEST = replace(TINY_REQUEST, prompt='a "ghost" in C:\\temp', seed=3)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    path = tmp_path_factory.mktemp("lora") / "ghost.safetensors"
    names = [name for name in linear_shapes(dit) if "transformer_blocks" in name]
    return write_synthetic_adapter(path, weight_norms(dit, names))


def setting(*loras: Lora, source: str = "Qwen/Qwen-Image") -> Setting:
    return Setting(Pretrained(source), loras, REQUEST, "cpu")


def decided(strategy: Strategy, scheme: str) -> Strategy:
    return strategy.with_scheme(scheme).with_scheme("stream", StepKind.OFFLOAD)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code asks ``from_pretrained`` for, which gives the tiny model instead."""
    asked: dict[str, Any] = {}

    def from_pretrained(**given: Any) -> QwenImagePipeline:
        asked.update(given)
        homes = {config.computation_device or given["device"] for config in given["model_configs"]}
        (home,) = homes
        return build_synthetic("tiny", seed=0, device=given["device"], weights_on=home)

    monkeypatch.setattr(QwenImagePipeline, "from_pretrained", from_pretrained)
    return asked


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    monkeypatch.chdir(folder)
    exec(compile(code, "advice.py", "exec"), {})  # noqa: S102 - it is what is tested
    with Image.open("output.png") as image:
        return np.asarray(image)


def measured(strategy: Strategy, scheme: str, *adapters: str) -> np.ndarray[Any, Any]:
    session = Session(Settings(device="cpu", model="synthetic:tiny", scheme=scheme, adapters=adapters))
    found = session.bench().generate(strategy.name, REQUEST).image
    session.close()
    return np.asarray(found)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("scheme", ["fp8_storage", "fp8_compute"])
@pytest.mark.parametrize("strategy", RIGHT, ids=lambda strategy: strategy.name)
def test_code_gives_the_image_that_was_measured(
    strategy: Strategy, scheme: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = code_for(decided(strategy, scheme), setting(Lora(str(adapter), 0.8)))
    expected = measured(strategy, scheme, f"{adapter}:0.8")
    assert np.array_equal(run(code, tmp_path, monkeypatch), expected)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("name", ["fused", "standard_lora"])
def test_code_reads_adapters_of_other_conventions_and_several(
    name: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({f"transformer.{key}": tensor for key, tensor in load_file(adapter).items()}, other)
    loras = (Lora(str(adapter), 0.5), Lora(str(other), 0.25, plain=False))
    (strategy,) = (each for each in RIGHT if each.name == name)
    code = code_for(strategy, setting(*loras))
    assert np.array_equal(
        run(code, tmp_path, monkeypatch), measured(strategy, "auto", f"{adapter}:0.5", f"{other}:0.25")
    )


@pytest.mark.parametrize("name", ["fused", "standard_lora"])
def test_code_reads_a_published_adapter_of_flux(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = build_synthetic("tiny", pipeline="flux", device="cpu").dit.single_blocks[0].proj_out.out_features
    block, generator = "transformer.single_transformer_blocks.0.attn", torch.Generator().manual_seed(0)
    factors = {
        f"{block}.to_{part}.lora_{letter}.weight": 0.1 * torch.randn(shape, generator=generator)
        for part in "qkv"
        for letter, shape in (("A", (4, width)), ("B", (width, 4)))
    }
    save_file(factors, tmp_path / "flux.safetensors")
    (strategy,) = (each for each in RIGHT if each.name == name)
    model, lora = Synthetic("tiny", pipeline="flux"), Lora(str(tmp_path / "flux.safetensors"), plain=False)
    code = code_for(strategy, Setting(model, (lora,), REQUEST, "cpu"))
    built = "from pytest_loraperf import build_synthetic\npipe = build_synthetic('tiny', pipeline='flux', device='cpu')"
    images = []
    for adapters in ((lora.path,), ()):
        session = Session(Settings(device="cpu", model=str(model), adapters=adapters))
        found = session.bench().generate(name, REQUEST).image
        images.append(np.asarray(found))
        session.close()
    shown = run(code.replace("pipe = ...", built), tmp_path, monkeypatch)
    assert np.array_equal(shown, images[0])
    assert not np.array_equal(shown, images[1])


def test_the_frames_of_a_video_are_saved_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = REQUEST.with_changes(extra=PIPELINES["wan"])
    (strategy,) = (each for each in RIGHT if each.name == "standard_lora")
    code = code_for(replace(strategy, steps=()), Setting(Synthetic("tiny", pipeline="wan"), (), request, "cpu"))
    assert "pipe = ...  # a wan pipeline, its weights on cpu" in code
    monkeypatch.chdir(tmp_path)
    built = (
        "from pytest_loraperf import build_synthetic\npipe = build_synthetic('tiny', pipeline='wan', device='cpu')"
    )
    exec(compile(code.replace("pipe = ...", built), "advice.py", "exec"), {})  # noqa: S102 - it is what is tested
    assert (tmp_path / "output.mp4").stat().st_size > 0
    assert "output.png" not in code


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("strategy", RIGHT, ids=lambda strategy: strategy.name)
def test_code_is_clean_by_our_own_linter(strategy: Strategy, scheme: str, *, compiled: bool) -> None:
    recipe = decided(strategy.compiled() if compiled else strategy, scheme)
    for model in (Pretrained("Qwen/Qwen-Image-Edit"), Synthetic("full"), Synthetic("tiny", pipeline="flux")):
        code = code_for(recipe, Setting(model, (), REQUEST, "cuda:0"))
        assert lint_source(code, "advice.py") == []
        ast.parse(code)


@pytest.mark.parametrize("strategy", MISTAKES, ids=lambda strategy: strategy.name)
def test_the_linter_finds_the_mistakes_in_code_of_ours(strategy: Strategy) -> None:
    # Were it blind to what code_for writes, the test above would hold nothing.
    recipe = strategy.with_scheme("torchao_fp8_w8a8")
    code = code_for(replace(recipe, steps=tuple(recipe.steps)), setting())
    found = {finding.code for finding in lint_source(code, "advice.py")}
    assert found == {"LRP101" if strategy.has(StepKind.FUSE) else "LRP102"}


def plain(configs: list[ModelConfig]) -> list[tuple[Any, ...]]:
    return [(config.path, config.model_id, config.origin_file_pattern) for config in configs]


@pytest.mark.parametrize("source", ["Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit-2509"])
def test_code_loads_what_was_measured_from_the_hub(
    source: str, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(code_for(NO_LORA, setting(source=source)), tmp_path, monkeypatch)
    parts = _remote(source)
    assert plain(asked["model_configs"]) == plain(parts.models)
    edits = parts.processor is not None
    assert plain([asked["processor_config"]] if edits else []) == plain(
        [parts.processor] if parts.processor else []
    )
    assert ("processor_config" in asked) is edits


def test_code_loads_what_was_measured_from_a_folder(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transformer/diffusion_pytorch_model-1.safetensors", "transformer/diffusion_pytorch_model-2.safetensors",
                 "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors",
                 "tokenizer/vocab.json", "processor/config.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run(code_for(NO_LORA, setting(source=str(tmp_path))), tmp_path, monkeypatch)
    parts = _local(tmp_path)
    assert plain(asked["model_configs"]) == plain(parts.models)
    assert asked["processor_config"].path == f"{tmp_path}/processor"
    assert asked["tokenizer_config"].path == f"{tmp_path}/tokenizer"


def test_weights_that_are_offloaded_are_loaded_into_host_memory() -> None:
    low_vram = decided(Strategy("mine", (FUSE, QUANTIZE, offload("6GB"))), "fp8_storage")
    code = code_for(low_vram, setting())
    assert code.count(", **home)") == 3
    assert "stream_blocks(pipe, 6 * 2**30)" in code
    assert "home" not in code_for(Strategy("mine", (FUSE,)), setting())


def test_users_build_function_is_called_where_the_weights_belong() -> None:
    model = UserBuilt(lambda **_: None, "mine.models:build")
    code = code_for(
        decided(Strategy("low", (ATTACH, offload("5GB", "diffsynth"))), "x"), Setting(model, (), REQUEST, "cuda:0")
    )
    assert "from mine.models import build" in code
    assert 'pipe = build(device="cpu")\npipe.device = "cuda:0"\n' in code
    assert "offload(pipe, 5 * 2**30)" in code


def test_a_lora_attached_below_torchao_is_handed_back() -> None:
    recipe = Strategy("mine", (ATTACH, Step("quantize", "torchao_fp8_w8a8"), COMPILE))
    code = code_for(recipe, setting())
    assert 'quantize_below_lora(pipe, "torchao_fp8_w8a8")' in code
    assert code.index("quantize_below_lora(pipe,") < code.index("pipe.compile_pipeline(")


@pytest.mark.parametrize("step", [Step("quantize", "nf4"), Step("offload", "group")], ids=str)
def test_there_is_no_code_for_another_backends_scheme(step: Step) -> None:
    with pytest.raises(LoraperfError, match=r"no code for (quantize\[nf4\]|offload\[group\]): it is no scheme"):
        code_for(Strategy("mine", (step,)), setting())


def test_code_of_an_edit_opens_the_image() -> None:
    request = replace(REQUEST, edit_image="in.png", negative_prompt="blurry", extra={"zero_cond_t": True})
    code = code_for(NO_LORA, Setting(Pretrained("Qwen/Qwen-Image-Edit"), (), request, "cuda:0"))
    assert 'edit_image=Image.open("in.png").convert("RGB"),' in code
    assert 'negative_prompt="blurry",' in code
    assert "zero_cond_t=True," in code
    assert torch.__name__ in code.splitlines()[0]
