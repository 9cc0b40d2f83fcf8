from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffsynth.core.vram.initialization import skip_model_initialization
from diffsynth.models.qwen_image_dit import QwenImageDiT
from diffsynth.models.qwen_image_text_encoder import QwenImageTextEncoder
from diffsynth.models.qwen_image_vae import QwenImageVAE
from diffsynth.pipelines.qwen_image import QwenImageUnit_PromptEmbedder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pytest_loraperf.backends import weights
from pytest_loraperf.backends.latents_only import has_image
from pytest_loraperf.backends.pipelines import describe, qwen_image
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.backends.synthetic_sizes import FULL_TEXT_WIDTH, TINY, DitSize
from pytest_loraperf.backends.tiny_text import SPECIAL_TOKENS, tiny_tokenizer
from pytest_loraperf.backends.weights import fill
from pytest_loraperf.errors import ModelError
from pytest_loraperf.gpu.pinned import HostMemory, host_memories
from pytest_loraperf.lora import linear_shapes
from pytest_loraperf.measure.memory import TensorBytes
from pytest_loraperf.registry import QWEN_IMAGE

BF16 = torch.bfloat16
QWEN = describe(QWEN_IMAGE)
FULL_PARAMETERS = 20_430_401_088
"""What DiffSynth's own `QwenImageDiT()` counts."""


def tiny(seed: int = 0, **options: Any) -> Any:
    return build_synthetic("tiny", seed=seed, **{"device": "cpu", "weights_on": "cpu", **options})


def latents(pipe: Any, **request: Any) -> torch.Tensor:
    """Run DiffSynth's own call at 64×64, 4 steps, and return what the VAE was given."""
    seen: list[torch.Tensor] = []
    decode = pipe.vae.decode

    def tapped(x: torch.Tensor, **options: Any) -> Any:
        seen.append(x)
        return decode(x, **options)

    pipe.vae.decode = tapped
    try:
        generate(pipe, **request)
    finally:
        del pipe.vae.decode
    return seen[0]


def generate(pipe: Any, **request: Any) -> Any:
    plain = {"prompt": "a ghost", "cfg_scale": 1.0, "height": 64, "width": 64, "num_inference_steps": 4, "seed": 0}
    return pipe(progress_bar_cmd=lambda steps: steps, edit_image_auto_resize=False, **plain | request)


def prompt_unit(pipe: Any) -> Any:
    """The one unit that encodes prompts."""
    (unit,) = [unit for unit in pipe.units if type(unit) is QwenImageUnit_PromptEmbedder]
    return unit


def plain_image(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """Every tensor that a pipeline computes with, the plain attributes that are in no state dict too."""
    named = dict(pipe.named_parameters()) | dict(pipe.named_buffers())
    for name, module in pipe.named_modules():
        named |= {f"{name}.{key}": value for key, value in vars(module).items() if isinstance(value, torch.Tensor)}
    return named


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny()


class TestTiny:
    def test_is_made_of_diffsynths_own_classes(self, pipe: Any) -> None:
        assert type(pipe.dit) is QwenImageDiT
        assert type(pipe.vae) is QwenImageVAE
        assert type(pipe.text_encoder) is QwenImageTextEncoder
        assert QwenImageUnit_PromptEmbedder in {type(unit) for unit in pipe.units}

    def test_no_tensor_is_left_without_values(self, pipe: Any) -> None:
        named = tensors(pipe)
        assert {"dit.pos_embed.pos_freqs", "dit.pos_embed.neg_freqs", "vae.mean", "vae.std"} <= set(named)
        assert {name: tensor.device.type for name, tensor in named.items() if tensor.device.type != "cpu"} == {}

    @pytest.mark.parametrize("dtype", [BF16, torch.float32])
    def test_weights_and_buffers_have_the_dtype(self, dtype: torch.dtype) -> None:
        pipe = tiny(dtype=dtype)
        named = dict(pipe.named_parameters()) | dict(pipe.named_buffers())
        assert pipe.torch_dtype is dtype
        assert {tensor.dtype for tensor in named.values()} == {dtype}
        assert any("inv_freq" in name for name in named), "the rotary frequencies are buffers"

    def test_weights_need_no_gradient_and_nothing_trains(self, pipe: Any) -> None:
        assert not any(parameter.requires_grad for parameter in pipe.parameters())
        assert not any(module.training for module in pipe.modules())

    def test_has_an_image(self, pipe: Any) -> None:
        assert has_image(pipe)
        image = generate(pipe)
        assert image.size == (64, 64)
        assert np.array(image).std() > 1, "not one flat colour"

    def test_latents_are_finite_and_of_their_usual_size(self, pipe: Any) -> None:
        result = latents(pipe)
        assert result.shape == (1, 16, 8, 8)
        assert result.dtype is BF16
        assert 0.1 < result.float().std() < 10

    def test_every_linear_of_the_dit_can_be_multiplied_in_fp8(self, pipe: Any) -> None:
        odd = {name: shape for name, shape in linear_shapes(pipe.dit).items() if shape[0] % 16 or shape[1] % 16}
        assert odd == {}

    def test_each_block_has_the_fourteen_linears_of_the_real_one(self, pipe: Any) -> None:
        assert block_linears(pipe.dit, block=1) == block_linears(full().dit, block=1)
        assert len(block_linears(pipe.dit, block=1)) == 14

    def test_loads_as_its_own_state_dict(self, pipe: Any) -> None:
        other = tiny(seed=1)
        for part in ("dit", "vae", "text_encoder"):
            getattr(other, part).load_state_dict(getattr(pipe, part).state_dict(), strict=True)
        assert torch.equal(latents(other), latents(pipe))


class TestDeterminism:
    def test_the_same_seed_gives_the_same_weights(self, pipe: Any) -> None:
        expected, built = tensors(pipe), tensors(tiny())
        assert set(built) == set(expected)
        assert [name for name in expected if not torch.equal(built[name], expected[name])] == []

    def test_another_seed_gives_other_weights(self, pipe: Any) -> None:
        expected, built = dict(pipe.named_parameters()), dict(tiny(seed=1).named_parameters())
        same = [name for name in expected if torch.equal(built[name], expected[name])]
        assert all(torch.all(expected[name] == 1) for name in same), "gains of norms alone are alike"

    def test_building_leaves_torchs_own_generator_alone(self) -> None:
        before = torch.get_rng_state()
        tiny()
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_same_request_gives_the_same_latents_from_a_pipeline_built_anew(self, pipe: Any) -> None:
        first = latents(pipe)
        assert torch.equal(latents(pipe), first)
        assert torch.equal(latents(tiny()), first)


class TestRequestsMatter:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"prompt": "a castle"}, id="prompt"),
            pytest.param({"prompt": "a ghost."}, id="one letter more"),
            pytest.param({"seed": 1}, id="seed"),
            pytest.param({"num_inference_steps": 5}, id="steps"),
            pytest.param({"cfg_scale": 4.0}, id="guidance"),
            pytest.param({"edit_image": plain_image((255, 0, 0))}, id="edit image"),
            pytest.param({"edit_image": [plain_image((255, 0, 0)), plain_image((0, 0, 255))]}, id="two images"),
        ],
    )
    def test_a_change_changes_the_latents(self, pipe: Any, change: dict[str, Any]) -> None:
        changed = latents(pipe, **change)
        assert torch.isfinite(changed).all()
        assert not torch.equal(changed, latents(pipe))

    def test_the_negative_prompt_counts_with_guidance_only(self, pipe: Any) -> None:
        blurry = {"negative_prompt": "blurry"}
        assert torch.equal(latents(pipe, **blurry), latents(pipe))
        assert not torch.equal(latents(pipe, **blurry, cfg_scale=4.0), latents(pipe, cfg_scale=4.0))

    def test_the_edit_image_itself_counts(self, pipe: Any) -> None:
        red, blue = (latents(pipe, edit_image=plain_image(colour)) for colour in ((255, 0, 0), (0, 0, 255)))
        assert not torch.equal(red, blue)

    def test_the_text_encoder_sees_the_edit_image(self, pipe: Any) -> None:
        unit = prompt_unit(pipe)
        red, blue = (
            unit.process(pipe, prompt="a ghost", edit_image=plain_image(colour))["prompt_emb"]
            for colour in ((255, 0, 0), (0, 0, 255))
        )
        assert red.shape == blue.shape
        assert not torch.equal(red, blue)


class TestTokenizer:
    def test_each_special_token_is_one_token(self) -> None:
        tokenizer = tiny_tokenizer()
        ids = tokenizer("".join(SPECIAL_TOKENS)).input_ids
        assert ids == [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
        assert len(set(ids)) == len(SPECIAL_TOKENS)

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def test_any_text_comes_back(self, text: str) -> None:
        tokenizer = tiny_tokenizer()
        decoded = tokenizer.decode(tokenizer(text).input_ids, clean_up_tokenization_spaces=False)
        assert decoded == unicodedata.normalize("NFC", text)


class TestWeights:
    def test_have_the_scale_of_real_ones(self, pipe: Any) -> None:
        mlp = pipe.dit.transformer_blocks[0].img_mlp.net[2]
        assert mlp.weight.float().std().item() == pytest.approx(1 / math.sqrt(mlp.in_features), rel=0.05)
        assert 0 < mlp.bias.float().std().item() < 0.05
        assert torch.all(pipe.dit.txt_norm.weight == 1)
        assert torch.all(pipe.vae.decoder.norm_out.gamma == 1)

    def test_are_kept_elsewhere_one_tensor_at_a_time(self) -> None:
        # The meta device stands for the host's memory here and the CPU for the GPU: TensorBytes counts the latter.
        with skip_model_initialization():
            dit = qwen_image.dit("tiny")
        sizes = [parameter.numel() * BF16.itemsize for parameter in dit.parameters()]
        meter = TensorBytes()
        with meter.watching():
            fill(dit, torch.Generator().manual_seed(0), weights_on="meta", dtype=BF16)
        assert {parameter.device.type for parameter in dit.parameters()} == {"meta"}
        assert max(sizes) <= meter.peak() <= 2 * max(sizes) < sum(sizes) / 4

    def test_are_the_same_in_memory_that_is_made_ahead(self, pipe: Any) -> None:
        class Elsewhere(torch.Generator):
            """A generator of the CPU that says that it is of a GPU: what it draws is kept in host memory then."""

            device = torch.device("cuda:0")

        with skip_model_initialization():
            dit = qwen_image.dit("tiny")
        made: list[int] = []

        def drawn_here(shape: torch.Size, std: float | None, dtype: torch.dtype, generator: Any) -> torch.Tensor:
            values = torch.empty(shape, dtype=dtype)
            return values.fill_(1.0) if std is None else values.normal_(0.0, std, generator=generator)

        def counted(sizes: list[int], device: torch.device, *, pin: bool) -> Iterator[HostMemory]:
            assert not pin
            made.extend(sizes)
            return host_memories(sizes, device, pin=pin)

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(weights, "draw", drawn_here)
            monkeypatch.setattr(weights, "host_memories", counted)
            fill(dit, Elsewhere().manual_seed(0), weights_on="cpu", dtype=BF16)
        assert sum(made) == sum(parameter.nbytes for parameter in dit.parameters())
        expected = dict(pipe.dit.named_parameters())
        assert [name for name, each in dit.named_parameters() if not torch.equal(each, expected[name])] == []

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_are_the_same_wherever_they_are_kept(self) -> None:
        kept_there = dict(tiny(device="cuda", weights_on="cuda").named_parameters())
        kept_here = dict(tiny(device="cuda", weights_on="cpu").named_parameters())
        assert {tensor.device.type for tensor in kept_here.values()} == {"cpu"}
        assert [name for name, here in kept_here.items() if not torch.equal(here, kept_there[name].cpu())] == []


def full() -> Any:
    """The full pipeline as it is before its weights are drawn: they would be 38 GiB."""
    return QWEN.assemble("full", device="cpu", dtype=BF16)


def block_linears(dit: torch.nn.Module, block: int) -> set[str]:
    prefix = f"transformer_blocks.{block}."
    return {name.removeprefix(prefix) for name in linear_shapes(dit) if name.startswith(prefix)}


@pytest.fixture
def narrow_full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The full pipeline with its 60 layers and its text width, but a narrow residual stream."""
    size = replace(TINY, layers=60, text_width=FULL_TEXT_WIDTH)
    monkeypatch.setattr(qwen_image, "QwenImageDiT", _scaled(size))
    pipe = full()
    fill(pipe.dit, torch.Generator().manual_seed(0), weights_on="cpu", dtype=BF16)
    return pipe.eval()


def _scaled(size: DitSize) -> Callable[[], Any]:
    with skip_model_initialization():
        built = qwen_image.scaled_dit(size)
    return lambda: built


class TestFull:
    def test_is_the_real_dit_and_nothing_is_allocated_yet(self) -> None:
        pipe = full()
        assert type(pipe.dit) is QwenImageDiT
        assert sum(parameter.numel() for parameter in pipe.parameters()) == FULL_PARAMETERS
        assert {parameter.device.type for parameter in pipe.parameters()} == {"meta"}
        assert pipe.dit.pos_embed.pos_freqs.device.type == "cpu"

    def test_has_840_linears_in_60_blocks(self) -> None:
        dit = full().dit
        assert len(dit.transformer_blocks) == 60
        assert sum(name.startswith("transformer_blocks.") for name in linear_shapes(dit)) == 840

    def test_has_no_image_and_no_text_encoder(self) -> None:
        pipe = full()
        assert not has_image(pipe)
        assert pipe.text_encoder is None
        assert list(pipe.vae.parameters()) == []

    def test_prompts_become_embeddings_where_diffsynth_computes_them(self) -> None:
        unit, real = prompt_unit(full()), prompt_unit(tiny())
        assert [type(each) for each in full().units] == [type(each) for each in tiny().units]
        assert unit.fetch_input_params() == real.fetch_input_params()
        assert unit.fetch_output_params() == real.fetch_output_params()

    def test_embeddings_follow_the_prompt(self) -> None:
        pipe = full()
        unit = prompt_unit(pipe)
        ghost, again, castle = (
            unit.process(pipe, prompt=prompt, edit_image=None) for prompt in ("ghost", "ghost", "castle")
        )
        assert ghost["prompt_emb"].shape == (1, 200, 3584)
        assert ghost["prompt_emb"].dtype is BF16
        assert torch.equal(ghost["prompt_emb"], again["prompt_emb"])
        assert not torch.equal(ghost["prompt_emb"], castle["prompt_emb"])
        assert torch.equal(ghost["prompt_emb_mask"], torch.ones(1, 200, dtype=torch.long))

    def test_runs_to_its_end_and_stays_sane_over_60_layers(self, narrow_full: Any) -> None:
        ghost = latents(narrow_full)
        assert ghost.shape == (1, 16, 8, 8)
        assert 0.1 < ghost.float().std() < 10
        assert generate(narrow_full).size == (8, 8), "the placeholder"
        assert not torch.equal(latents(narrow_full, prompt="a castle"), ghost)
        guided = latents(narrow_full, cfg_scale=4.0, negative_prompt="blurry")
        assert torch.isfinite(guided).all()
        assert not torch.equal(guided, ghost)

    def test_refuses_an_image(self, narrow_full: Any) -> None:
        with pytest.raises(ModelError) as caught:
            generate(narrow_full, edit_image=plain_image((255, 0, 0)))
        assert str(caught.value) == (
            "synthetic:full has no VAE and takes no image; leave the image out, "
            "or use synthetic:tiny or a pretrained model"
        )

    def test_refuses_the_cpu(self) -> None:
        with pytest.raises(ModelError) as caught:
            build_synthetic("full", seed=0, device="cpu", weights_on="cpu")
        assert str(caught.value) == (
            "synthetic:full has 20.43 B parameters and needs a CUDA device; use synthetic:tiny"
        )


def test_users_build_it_by_a_public_name() -> None:
    import pytest_loraperf

    mine, ours = pytest_loraperf.build_synthetic("tiny", device="cpu"), tiny()
    pairs = zip(mine.dit.parameters(), ours.dit.parameters(), strict=True)
    assert all(torch.equal(one, other) and one.device.type == "cpu" for one, other in pairs)
