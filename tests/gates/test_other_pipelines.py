"""Pipelines beside Qwen-Image, named on the command line and in the ini."""

from __future__ import annotations

import pytest

from pytest_loraperf.report.results import read_results

MODEL = "synthetic:z-image:tiny"
TEST = """
    def test_generates(fused_pipeline):
        assert fused_pipeline(steps=2).latents.isfinite().all()
        assert type(fused_pipeline.pipeline).__name__ == "ZImagePipeline"
"""


def test_the_pipeline_is_named_on_the_command_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest("--loraperf-device=cpu", f"--loraperf-model={MODEL}", "--gpu-budget=1GB")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"{MODEL} on CPU*"])


def test_the_pipeline_is_named_in_the_ini(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    pytester.makeini(f"[pytest]\nloraperf_model = {MODEL}\n")
    pytester.runpytest("--loraperf-device=cpu").assert_outcomes(passed=1)


def test_another_pipeline_is_refused_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-model=synthetic:sd15:tiny")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: --loraperf-model: model: got 'synthetic:sd15:tiny'; synthetic models are synthetic:tiny and "
            "synthetic:full, or synthetic:PIPELINE:SIZE with a pipeline of qwen-image, flux, wan, z-image"
        ]
    )
    result.stderr.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_verdict_is_on_the_model_that_the_test_is_of(pytester: pytest.Pytester, workers: str) -> None:
    for folder, model, limit in (("a", "synthetic:tiny", "60s"), ("b", MODEL, "1us")):
        place = pytester.mkpydir(folder)
        place.joinpath("conftest.py").write_text(
            "import pytest\n\n@pytest.fixture(scope='session')\ndef lora_model():\n" + f"    return {model!r}\n"
        )
        place.joinpath("test_it.py").write_text(
            f"import pytest\n\n@pytest.mark.latency_budget({limit!r})\n"
            "def test_it(no_lora_pipeline):\n    no_lora_pipeline(steps=2)\n"
        )
    result = pytester.runpytest_subprocess("--loraperf-device=cpu", "--loraperf-json=out.json", workers)
    result.assert_outcomes(passed=1, failed=1)
    found = read_results(pytester.path / "out.json")
    other = next(name for name in found.strategies if name != "no_lora")
    models = {name: each.model for name, each in found.strategies.items()}
    verdicts = {models[name]: found.verdict_of(name) for name in ("no_lora", other)}
    assert verdicts == {"synthetic:tiny": "PASS", MODEL: "FAIL"}
