"""Each described pipeline, tiny, on the CPU: each step does what it says on each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_loraperf.backends import pipelines
from pytest_loraperf.backends.latents_only import has_image
from pytest_loraperf.backends.pipelines import describe
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import ModelError
from pytest_loraperf.lora import weight_norms, write_synthetic_adapter
from pytest_loraperf.measure.difference import image_difference
from pytest_loraperf.models import SIZES, Synthetic
from pytest_loraperf.options import Settings
from pytest_loraperf.registry import PIPELINES
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import Strategies

LINES = 80
FLOOR = 0.5
GAIN = {"standard_lora", "lora_then_quantize", "fused", "fused_then_quantize", "low_vram", "low_vram_optimized"}
SHAPES = {"qwen-image": (1, 16, 8, 8), "flux": (1, 16, 8, 8), "wan": (1, 16, 2, 8, 8), "z-image": (1, 16, 8, 8)}
PARAMETERS = {name: describe(name).billions for name in PIPELINES}


@pytest.fixture(scope="module", params=list(PIPELINES))
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    session = Session(Settings(model=f"synthetic:{request.param}:tiny", device="cpu"), Strategies())
    yield session
    session.close()


@pytest.fixture(scope="module")
def bench(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    plain = session.bench(adapters=[])
    pipe = plain.arm("no_lora").pipeline
    names = session.shop.backend.lora_targets(pipe)
    file = tmp_path_factory.mktemp("lora") / "a.safetensors"
    return session.bench(adapters=[write_synthetic_adapter(file, weight_norms(pipe.dit, names), rank=8, seed=0)])


@pytest.mark.parametrize("strategy", sorted(GAIN))
def test_the_lora_is_there_after_each_step(session: Session, bench: Bench, strategy: str) -> None:
    request = session.request()
    plain = bench.generate("no_lora", request).latents
    found = bench.generate(strategy, request).latents
    assert tuple(found.shape) == SHAPES[bench.model.pipeline]  # type: ignore[union-attr]  # it is synthetic
    assert torch.isfinite(found).all()
    assert not torch.equal(found, plain)
    gains = bench.arm(strategy).gains
    assert gains
    assert min(gains.values()) > FLOOR


def test_what_is_decoded_is_an_image_or_the_frames_of_a_video(session: Session, bench: Bench) -> None:
    request = session.request()
    plain, fused = (bench.output(name, request).image for name in ("no_lora", "fused"))
    frames = plain if isinstance(plain, list) else [plain]
    assert len(frames) == request.extra.get("num_frames", 1)
    assert {frame.size for frame in frames} == {(request.width, request.height)}
    assert all(np.array(frame).std() > 1 for frame in frames), "not one flat colour"
    far = image_difference(fused, plain)
    assert 0 < far.rel_l2 < 1
    assert image_difference(fused, fused).psnr == math.inf


@pytest.mark.parametrize("name", list(PIPELINES))
def test_the_full_size_decodes_latents_only(name: str) -> None:
    pipe = describe(name).assemble("full", device="meta", dtype=torch.bfloat16)
    assert not has_image(pipe)


@pytest.mark.parametrize("name", list(PIPELINES))
def test_the_full_size_has_the_parameters_that_it_names(name: str) -> None:
    pipe = describe(name).assemble("full", device="meta", dtype=torch.bfloat16)
    counted = sum(parameter.numel() for parameter in pipe.dit.parameters())
    assert counted / 1e9 == pytest.approx(PARAMETERS[name], abs=0.006)


@pytest.mark.parametrize("name", list(PIPELINES))
def test_the_full_size_is_refused_on_the_cpu(name: str) -> None:
    tiny, full = (re.escape(str(Synthetic(size, pipeline=name))) for size in SIZES)
    with pytest.raises(ModelError, match=f"^{full} has .* B parameters and needs a CUDA device; use {tiny}$"):
        build_synthetic("full", pipeline=name, seed=0, device="cpu", weights_on="cpu")


@pytest.mark.parametrize("name", list(PIPELINES))
def test_another_prompt_gives_other_embeddings(name: str) -> None:
    described = describe(name)
    pipe = described.assemble("full", device="cpu", dtype=torch.bfloat16)
    (unit,) = [unit for unit in pipe.units if isinstance(unit, described.prompt_unit)]
    ghost, again, library = (str(unit.process(pipe, prompt=text)) for text in ("ghost", "ghost", "library"))
    assert ghost == again != library


@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_description_is_short(name: str) -> None:
    file = Path(pipelines.__path__[0]) / f"{name.replace('-', '_')}.py"
    assert len(file.read_text().splitlines()) < LINES
