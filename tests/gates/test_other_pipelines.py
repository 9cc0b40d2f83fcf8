"""Pipelines beside Qwen-Image, named on the command line and in the ini."""

from __future__ import annotations

import pytest

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
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf: model: got 'synthetic:sd15:tiny'; synthetic models are synthetic:tiny and synthetic:full, or "
            "synthetic:PIPELINE:SIZE with a pipeline of qwen-image, flux, wan, z-image"
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
