"""Pretrained pipelines of diffusers under the gates, from folders that diffusers itself wrote, as small as can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# The inner runs share this process, and what it imports of torch can be imported only once in it.
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import parse_model

CPU = Device("cpu", "CPU")
SAVED = {"QwenImagePipeline": "synthetic:tiny", "FluxPipeline": "synthetic:flux:tiny"}
TEST = """
    import pytest

    @pytest.mark.lora_strategy("standard_lora", "fused", "fused_then_quantize", "low_vram_optimized")
    @pytest.mark.output_equivalent(to="standard_lora", image_psnr=15)
    @pytest.mark.lora_effect(min_gain=0.9)
    @pytest.mark.vram_budget("1GB")
    @pytest.mark.latency_budget("60s")
    def test_holds(lora_pipeline):
        output = lora_pipeline(height=64, width=64)
        assert type(lora_pipeline.pipeline).__name__ == {kind!r}
        assert output.image.size == (64, 64)
"""


@pytest.fixture(scope="module", params=list(SAVED))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline of random weights, saved by ``save_pretrained``."""
    folder = tmp_path_factory.mktemp("saved")
    Diffusers(CPU).build(parse_model(SAVED[kind]), CPU, on_cpu=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("way", ["option", "ini"])
def test_gates_hold_for_a_folder_of_diffusers(
    pytester: pytest.Pytester, kind: str, folder: Path, way: str
) -> None:
    options = {"loraperf_model": f"pretrained:{folder}", "loraperf_backend": "diffusers"}
    pytester.makepyfile(TEST.format(kind=kind))
    pytester.makeini(
        "\n".join(["[pytest]", *(f"{name} = {value}" for name, value in options.items())] * (way == "ini"))
    )
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()] * (way == "option")
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-json=out.json", *words)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"pretrained:{folder} on CPU (cpu), *"])
    found = json.loads((pytester.path / "out.json").read_text())
    assert found["machine"]["backend"].startswith("diffusers ")
    assert found["model"] == f"pretrained:{folder}"
    assert {verdict["code"] for verdict in found["verdicts"]} >= {"equivalence", "lora-effect", "vram", "latency"}
    assert {verdict["status"] for verdict in found["verdicts"]} == {"PASS"}


def test_a_gate_fails_for_a_folder_of_diffusers(pytester: pytest.Pytester, folder: Path) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="no_lora", rel_l2=1e-6)
        def test_fails(fused_pipeline):
            fused_pipeline(height=64, width=64)
    """)
    result = pytester.runpytest(
        "--loraperf-device=cpu", "--loraperf-backend=diffusers", f"--loraperf-model=pretrained:{folder}"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*loraperf equivalence: fused: the output is not equivalent to no_lora*"])


def test_a_folder_that_lacks_its_weights_is_one_clear_line(pytester: pytest.Pytester, folder: Path) -> None:
    pytester.makepyfile("def test_it(fused_pipeline): fused_pipeline()")
    empty = pytester.mkdir("empty")
    (empty / "model_index.json").write_bytes((folder / "model_index.json").read_bytes())
    result = pytester.runpytest(
        "--loraperf-device=cpu", "--loraperf-backend=diffusers", f"--loraperf-model=pretrained:{empty}"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"loraperf: pretrained:{empty}: diffusers cannot load it: *"])
    assert "Traceback" not in result.stdout.str()
