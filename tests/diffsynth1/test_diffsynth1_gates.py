"""The plugin's fixtures, markers and table over DiffSynth 1.1, as a user sees them."""

from __future__ import annotations

import pytest

CPU = ("-p", "no:asyncio", "--loraperf-device=cpu", "--loraperf-backend=diffsynth1")


def test_gates_hold_for_the_right_orders(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("fused", "lora_then_quantize", "fused_then_quantize", "low_vram_optimized")
        @pytest.mark.output_equivalent(to="standard_lora")
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest(*CPU)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*synthetic:tiny on CPU (cpu)*diffsynth1 1.1.*"])


def test_equivalence_fails_over_a_tight_limit(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="standard_lora", rel_l2=1e-6)
        def test_it(fused_pipeline):
            fused_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest(*CPU)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*loraperf equivalence: fused: the output is not equivalent to standard_lora*"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_call_that_quantizes_nothing_fails_the_test(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile("def test_it(fused_then_quantize_pipeline): pass")
    pytester.makeini("[pytest]\n" + ("loraperf_scheme = fp8_loaded" if way == "ini" else ""))
    result = pytester.runpytest(*CPU, *(["--loraperf-scheme=fp8_loaded"] if way == "option" else []))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*strategy fused_then_quantize, step 2 (quantize?fp8_loaded?): changed none of 34 layers; *"]
    )
