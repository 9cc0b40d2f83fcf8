"""A gate is about the pipeline and the calls of its own test: not those of other fixtures, requests or tests."""

from __future__ import annotations

import pytest

USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    "gate",
    [
        "latency_budget('1s')",
        "vram_budget('1GB')",
        "lora_effect(min_gain=0.5)",
        "output_equivalent(to='no_lora', rel_l2=1)",
    ],
)
def test_two_pipelines_and_a_gate(pytester: pytest.Pytester, gate: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.{gate}
        def test_it(fused_pipeline, standard_lora_pipeline):
            fused_pipeline()
            standard_lora_pipeline()
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            "*::test_it: @pytest.mark.latency_budget, faster_than, output_equivalent, lora_effect or vram_budget: the test "
            "uses standard_lora_pipeline and fused_pipeline, and gates are about one pipeline; name the others in the "
            "markers, or race them with lora_race"
        ]
    )


def test_a_strategy_that_is_named_too_late(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", [pytest.param("fused", marks=pytest.mark.lora_strategy("fused"))])
        def test_it(lora_pipeline, name):
            lora_pipeline()
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            "*::test_it*: @pytest.mark.lora_strategy: in pytest.param it comes too late to choose the pipeline; mark the "
            "test, or parametrize lora_pipeline"
        ]
    )


def test_what_the_requests_of_other_tests_needed_is_not_held_against_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        def test_large(fused_pipeline):
            fused_pipeline(height=128, width=128, steps=2)

        @pytest.mark.vram_budget("2.8MB")
        def test_small(fused_pipeline):
            fused_pipeline(height=64, width=64, steps=2)

        @pytest.mark.vram_budget("2.8MB")
        def test_not_called(fused_pipeline):
            pass

        @pytest.mark.vram_budget("2.8MB")
        def test_large_too(fused_pipeline):
            fused_pipeline(height=64, width=64, steps=2)
            fused_pipeline(height=128, width=128, steps=2)
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-model=synthetic:tiny", "-p", "no:randomly")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["loraperf vram: fused needs * over the budget of 2.8 MB*"])


def test_a_model_of_the_scope_of_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def lora_model(monkeypatch):
            return "synthetic:tiny"

        def test_it(fused_pipeline):
            fused_pipeline(steps=2)
    """)
    pytester.runpytest("--loraperf-device=cpu").assert_outcomes(passed=1)
