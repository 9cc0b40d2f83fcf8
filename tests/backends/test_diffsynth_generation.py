"""What a request asks for and what comes back, on DiffSynth's real pipeline, tiny, on the CPU."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.generation import check_extra
from pytest_loraperf.backends.latents_only import LatentsOnly, has_image
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.protocol import Generation
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.errors import LoraperfError, ModelError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import Synthetic, UserBuilt
from pytest_loraperf.registry import QWEN_IMAGE
from pytest_loraperf.request import TINY_REQUEST, Request

CPU = Device("cpu", "CPU")
AS_IT_IS = {"edit_image_auto_resize": False}
"""DiffSynth would scale an image to edit up to a megapixel."""


@pytest.fixture(scope="module")
def backend() -> DiffSynth:
    return DiffSynth(CPU)


@pytest.fixture(scope="module")
def pipe(backend: DiffSynth) -> Any:
    return backend.build(Synthetic("tiny"), CPU, on_cpu=False)


@pytest.fixture(scope="module")
def plain(backend: DiffSynth, pipe: Any) -> Generation:
    return backend.generate(pipe, TINY_REQUEST)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    files = {colour: folder / f"{colour}.png" for colour in ("red", "blue")}
    for colour, file in files.items():
        Image.new("RGB", (64, 64), colour).save(file)
    return {colour: str(file) for colour, file in files.items()}


class TestGeneration:
    def test_has_the_latents_in_the_pipelines_own_form(self, plain: Generation) -> None:
        assert plain.latents.shape == (1, 16, 8, 8)
        assert plain.latents.dtype is torch.bfloat16
        assert plain.latents.isfinite().all()

    def test_has_an_image_of_the_requested_size(self, backend: DiffSynth, pipe: Any) -> None:
        wide = backend.generate(pipe, TINY_REQUEST.with_changes(height=48, width=80))
        assert wide.latents.shape == (1, 16, 6, 10)
        assert wide.image is not None
        assert wide.image.size == (80, 48)

    def test_the_image_is_what_the_vae_makes_of_the_latents(self, pipe: Any, plain: Generation) -> None:
        with torch.no_grad():
            expected = pipe.vae_output_to_image(pipe.vae.decode(plain.latents, device="cpu"))
        assert plain.image is not None
        assert plain.image.tobytes() == expected.tobytes()

    def test_is_the_same_each_time_and_leaves_the_vae_as_it_was(
        self, backend: DiffSynth, pipe: Any, plain: Generation
    ) -> None:
        assert torch.equal(backend.generate(pipe, TINY_REQUEST).latents, plain.latents)
        assert "decode" not in vars(pipe.vae)

    def test_leaves_the_vae_as_it_was_after_an_error_too(self, backend: DiffSynth, pipe: Any) -> None:
        with pytest.raises(TypeError, match="must be real number, not str"):
            backend.generate(pipe, TINY_REQUEST.with_changes(extra={"exponential_shift_mu": "much"}))
        assert "decode" not in vars(pipe.vae)

    @pytest.mark.parametrize(
        "change",
        [
            {"prompt": "a castle"},
            {"seed": 1},
            {"steps": 5},
            {"cfg": 4.0},
            {"extra": {"exponential_shift_mu": 2.0}},
        ],
        ids="".join,
    )
    def test_follows_the_request(
        self, backend: DiffSynth, pipe: Any, plain: Generation, change: dict[str, Any]
    ) -> None:
        assert not torch.equal(backend.generate(pipe, TINY_REQUEST.with_changes(**change)).latents, plain.latents)

    def test_the_negative_prompt_counts_with_guidance(self, backend: DiffSynth, pipe: Any) -> None:
        guided = TINY_REQUEST.with_changes(cfg=4.0)
        blurry = guided.with_changes(negative_prompt="blurry")
        assert not torch.equal(backend.generate(pipe, guided).latents, backend.generate(pipe, blurry).latents)

    def test_prints_nothing(self, backend: DiffSynth, pipe: Any, capfd: pytest.CaptureFixture[str]) -> None:
        backend.generate(pipe, TINY_REQUEST)
        assert capfd.readouterr() == ("", "")


class TestEditing:
    def test_the_image_counts(
        self, backend: DiffSynth, pipe: Any, plain: Generation, pictures: dict[str, str]
    ) -> None:
        red, blue = (
            backend.generate(pipe, TINY_REQUEST.with_changes(edit_image=pictures[colour], extra=AS_IT_IS)).latents
            for colour in ("red", "blue")
        )
        assert red.shape == plain.latents.shape
        assert not torch.equal(red, plain.latents)
        assert not torch.equal(red, blue)

    def test_any_mode_of_image_is_read_as_rgb(
        self, backend: DiffSynth, pipe: Any, pictures: dict[str, str], tmp_path: Path
    ) -> None:
        with Image.open(pictures["red"]) as image:
            image.convert("RGBA").save(tmp_path / "red.png")
        first, second = (
            backend.generate(pipe, TINY_REQUEST.with_changes(edit_image=path, extra=AS_IT_IS)).latents
            for path in (pictures["red"], str(tmp_path / "red.png"))
        )
        assert torch.equal(first, second)

    def test_a_missing_image_is_one_line(self, backend: DiffSynth, pipe: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "none.png")
        with pytest.raises(LoraperfError) as caught:
            backend.generate(pipe, TINY_REQUEST.with_changes(edit_image=path))
        assert str(caught.value) == (
            f"request: edit_image {path!r} cannot be read: [Errno 2] No such file or directory: {path!r}"
        )

    def test_what_is_no_image_is_one_line(self, backend: DiffSynth, pipe: Any, tmp_path: Path) -> None:
        path = tmp_path / "text.png"
        path.write_text("no image")
        for run in (backend.check, backend.generate):
            with pytest.raises(LoraperfError) as caught:
                run(pipe, TINY_REQUEST.with_changes(edit_image=str(path)))
            assert str(caught.value) == (
                f"request: edit_image {str(path)!r} cannot be read: cannot identify image file {str(path)!r}"
            )


def test_one_step_is_refused(backend: DiffSynth, pipe: Any) -> None:
    with pytest.raises(LoraperfError) as caught:
        backend.generate(pipe, Request(steps=1))
    assert str(caught.value) == "request: steps=1; QwenImagePipeline's scheduler gives NaN below 2"


def test_an_argument_that_the_pipeline_does_not_take_is_refused(backend: DiffSynth, pipe: Any) -> None:
    with pytest.raises(LoraperfError) as caught:
        backend.generate(pipe, TINY_REQUEST.with_changes(extra={"zero_cond_t": True, "stepz": 3}))
    assert str(caught.value).startswith(
        "request: extra: QwenImagePipeline takes no 'stepz'; it takes prompt, negative_prompt, cfg_scale, "
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seed", "'seed' is the request's field seed; give it there"),
        ("num_inference_steps", "'num_inference_steps' is the request's field steps; give it there"),
        ("progress_bar_cmd", "'progress_bar_cmd' is set by the plugin; leave it out"),
    ],
)
def test_an_argument_that_the_request_has_a_field_for_is_refused(
    backend: DiffSynth, pipe: Any, name: str, message: str
) -> None:
    for run in (backend.check, backend.generate):
        with pytest.raises(LoraperfError) as caught:
            run(pipe, TINY_REQUEST.with_changes(extra={name: 3}))
        assert str(caught.value) == f"request: extra: {message}"


def test_the_arguments_of_what_wraps_a_call_are_known() -> None:
    class Wrapped:
        def __call__(self, prompt: str) -> None: ...

    inner: Any = Wrapped.__call__

    @functools.wraps(inner)
    def outer(self: Wrapped, *args: Any, my_flag: bool = False, **kwargs: Any) -> None: ...

    Wrapped.__call__ = outer  # type: ignore[method-assign]  # as packages that speed pipelines up do
    check_extra(Wrapped(), TINY_REQUEST.with_changes(extra={"my_flag": True}))
    with pytest.raises(LoraperfError, match="Wrapped takes no 'stepz'; it takes my_flag, prompt"):
        check_extra(Wrapped(), TINY_REQUEST.with_changes(extra={"stepz": 3}))


def test_a_pipeline_that_takes_any_argument_or_cannot_tell_is_asked_no_more() -> None:
    class Lenient:
        def __call__(self, prompt: str, **more: object) -> None: ...

    class Mute(dict[str, int]):
        __call__ = dict.update

    for pipe in (Lenient(), Mute()):
        check_extra(pipe, TINY_REQUEST.with_changes(extra={"stepz": 3}))


def test_two_steps_are_enough(backend: DiffSynth, pipe: Any) -> None:
    assert backend.generate(pipe, TINY_REQUEST.with_changes(steps=2)).latents.isfinite().all()


def test_without_a_vae_there_are_latents_and_no_image(backend: DiffSynth) -> None:
    pipe = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
    pipe.vae, pipe.text_encoder = LatentsOnly(), None
    describe(QWEN_IMAGE).seed_prompts(pipe, "tiny")
    ghost, castle = (
        backend.generate(pipe, TINY_REQUEST.with_changes(prompt=prompt)) for prompt in ("ghost", "castle")
    )
    assert not has_image(pipe)
    assert ghost.image is None
    assert ghost.latents.shape == (1, 16, 8, 8)
    assert ghost.latents.isfinite().all()
    assert not torch.equal(ghost.latents, castle.latents)


class TestBuildFunctions:
    def test_a_pipeline_generates_as_if_it_were_ours(self, backend: DiffSynth, plain: Generation) -> None:
        def build(device: str) -> Any:
            return build_synthetic("tiny", seed=0, device=device, weights_on=device)

        pipe = backend.build(UserBuilt(build, "build"), CPU, on_cpu=False)
        assert torch.equal(backend.generate(pipe, TINY_REQUEST).latents, plain.latents)

    @pytest.mark.parametrize(("on_cpu", "asked"), [(True, "cpu"), (False, "cuda:0")])
    def test_are_asked_for_weights_where_they_are_wanted(
        self, backend: DiffSynth, on_cpu: bool, asked: str
    ) -> None:
        devices = []

        def build(device: str) -> Any:
            devices.append(device)
            return build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")

        pipe = backend.build(UserBuilt(build, "build"), Device("cuda:0", "a card"), on_cpu=on_cpu)
        assert devices == [asked]
        # It computes on the card in any case, and DiffSynth is told so.
        assert (pipe.device, pipe.device_type) == ("cuda:0", "cuda")

    def test_one_that_raises_is_told_in_one_line(self, backend: DiffSynth) -> None:
        def build(device: str) -> Any:
            raise FileNotFoundError(f"no weights for {device}\nlook elsewhere")

        with pytest.raises(ModelError) as caught:
            backend.build(UserBuilt(build, "repo.models:build"), CPU, on_cpu=False)
        assert re.fullmatch(
            r"the build function repo\.models:build raised FileNotFoundError: no weights for cpu "
            r"\(test_diffsynth_generation\.py:\d+\)",
            str(caught.value),
        )

    @pytest.mark.parametrize("built", [None, {"dit": 1}, torch.nn.Linear(2, 2)], ids=["None", "dict", "a module"])
    def test_what_is_no_pipeline_is_told(self, backend: DiffSynth, built: object) -> None:
        def build(device: str) -> object:
            return built if device else None

        with pytest.raises(ModelError) as caught:
            backend.build(UserBuilt(build, "build"), CPU, on_cpu=False)
        assert str(caught.value) == (
            f"the build function build returned {type(built).__name__}; "
            "a DiffSynth pipeline with a dit is needed, such as QwenImagePipeline"
        )
