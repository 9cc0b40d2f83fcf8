"""Gates on real DiffSynth pipelines, tiny, on the CPU."""

from __future__ import annotations

import pytest


def test_equivalence_holds_for_the_right_order(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("fused", "lora_then_quantize", "fused_then_quantize", "low_vram_optimized")
        @pytest.mark.output_equivalent(to="standard_lora")
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    pytester.runpytest("--loraperf-device=cpu").assert_outcomes(passed=4)


def test_equivalence_fails_over_a_tight_limit(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="standard_lora", rel_l2=1e-6, psnr=200)
        def test_it(fused_pipeline):
            fused_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf equivalence: fused: the output is not equivalent to standard_lora: relative L2 *, the limit is "
            "at most 1e-06; PSNR *, the limit is at least 200; check the order of the steps, or set the limit that "
            "this scheme needs",
            "relative L2 *(at most 1e-06)",
            "image PSNR *",
            "LoRA effect *",
        ]
    )


LOST = """
    import pytest
    from pytest_loraperf import QUANTIZE, ATTACH, Strategy

    def pytest_loraperf_strategies(config):
        return [Strategy("lost", (ATTACH, QUANTIZE))]

    @pytest.fixture(scope="session", autouse=True)
    def lose_it():
        from pytest_loraperf.backends import diffsynth
        from pytest_loraperf.strategies import StepKind
        apply = diffsynth.DiffSynth.apply

        def losing(self, pipe, step, adapters):
            effect = apply(self, pipe, step, adapters)
            if step.kind is StepKind.QUANTIZE:
                pipe.clear_lora(verbose=0)
            return effect

        diffsynth.DiffSynth.apply = losing
        yield
        diffsynth.DiffSynth.apply = apply
"""


def test_a_lost_lora_fails_though_the_distance_is_within_the_limit(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(LOST)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("lost")
        @pytest.mark.output_equivalent(to="standard_lora", rel_l2=0.5)
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf equivalence: lost: the LoRA had no effect: the output keeps * of the effect that standard_lora "
            "shows (at least 0.3 is needed); check that the adapter matches and was fused before quantizing"
        ]
    )


def test_the_control_without_lora_is_no_equivalent(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="standard_lora", rel_l2=0.005)
        def test_it(no_lora_pipeline):
            no_lora_pipeline(prompt="a ghost")
    """)
    pytester.runpytest("--loraperf-device=cpu").assert_outcomes(failed=1)


WEIGHTS = "* MB  weights of dit.transformer_blocks, 2 blocks (bfloat16)"
LARGEST = "largest: the weights of dit.transformer_blocks, 2 blocks (bfloat16); quantize or offload them"
TAKEN_APART = {
    "setup": ["* MB  live tensors"],
    "resident": [WEIGHTS, LARGEST],
    "runtime": [WEIGHTS, "* KB  made by the generation, most of it live in vae.decoder.*", LARGEST],
}


@pytest.mark.parametrize(("limit", "outcome"), [("100MB", "passed"), ("1MB", "failed")])
@pytest.mark.parametrize("phase", ["setup", "resident", "runtime"])
def test_vram_budget(pytester: pytest.Pytester, limit: str, outcome: str, phase: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.vram_budget("{limit}", phase="{phase}")
        def test_it(standard_lora_pipeline):
            standard_lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines(
            [
                f"*loraperf vram: standard_lora needs * MB of tensor bytes ({phase}), * over the budget of 1 MB; "
                "quantize, offload, or raise the budget",
                "setup * MB",
                "resident * MB",
                "runtime * MB",
                f"standard_lora, {phase} peak:",
                *TAKEN_APART[phase],
            ]
        )


def test_vram_budget_holds_any_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        import torch

        @pytest.fixture
        def weights():
            return torch.zeros(2**20)

        @pytest.mark.vram_budget("1MB", phase="setup")
        def test_setup(weights):
            pass

        @pytest.mark.vram_budget("6MB")
        def test_runtime(weights):
            torch.zeros(2**20)
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.stdout.fnmatch_lines(
        [
            "*loraperf vram: the test needs 4 MB of tensor bytes (setup), 3 MB over the budget of 1 MB; *",
            "*loraperf vram: the test needs 8 MB of tensor bytes (runtime), 2 MB over the budget of 6 MB; *",
            "runtime peak:",
            "* 8 MB  live tensors",
        ]
    )


@pytest.mark.parametrize("way", ["option", "ini"])
def test_gpu_budget_holds_tests_that_know_nothing_of_it(pytester: pytest.Pytester, way: str) -> None:
    if way == "ini":
        pytester.makeini("[pytest]\ngpu_budget = 3MB")
    pytester.makepyfile("""
        import pytest
        import torch

        @pytest.fixture(scope="session")
        def model():
            return torch.zeros(2**20)

        def test_needs_four(model):
            pass

        def test_small():
            assert torch.zeros(10).sum() == 0

        def test_call_needs_eight():
            torch.zeros(2**21)
    """)
    result = pytester.runpytest("--loraperf-device=cpu", *(["--gpu-budget=3MB"] if way == "option" else []))
    # The session's model stays, so a card would have to hold it during the other tests too.
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "loraperf: *--gpu-budget=3 MB (3145728 bytes) of counted tensor bytes: no CUDA here, on the CPU",
            "*loraperf gpu-budget: the test needs 4 MB of tensor bytes (setup), 1 MB over --gpu-budget=3 MB; "
            "hold less at a time, or raise --gpu-budget",
            "*loraperf gpu-budget: the test needs 12 MB of tensor bytes (runtime), 9 MB over --gpu-budget=3 MB; *",
        ]
    )


def test_gpu_budget_names_what_fits_and_breaks_down(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("fused_then_quantize", "standard_lora")
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--gpu-budget=2.6MB", "-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf gpu-budget: the test needs * MB of tensor bytes (runtime), * over --gpu-budget=2.6 MB; known to "
            "fit, the fastest first: fused_then_quantize (* MB, *)",
            "standard_lora setup * MB",
            "standard_lora attach * MB",
        ]
    )


def test_what_gave_another_output_is_not_named_as_what_fits(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="standard_lora", max_abs=1e-9)
        def test_other(fused_then_quantize_pipeline):
            fused_then_quantize_pipeline(prompt="a ghost")

        def test_large(standard_lora_pipeline):
            standard_lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--gpu-budget=2.6MB", "-p", "no:randomly")
    result.assert_outcomes(failed=2)
    known = "over --gpu-budget=2.6 MB; no right strategy measured so far fits; try low_vram_optimized"
    result.stdout.fnmatch_lines(
        [f"*loraperf gpu-budget: the test needs * MB of tensor bytes (runtime), * {known}"]
    )


def test_a_pipeline_built_earlier_is_charged_its_set_up_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_first(fused_then_quantize_pipeline):
            pass

        def test_second(fused_then_quantize_pipeline):
            pass
    """)
    # Set-up holds the bf16 weights (2.2 MB); quantized they are 1.8 MB.
    result = pytester.runpytest("--loraperf-device=cpu", "--gpu-budget=2MB")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*(setup)*", "*(setup)*"])


def test_pipelines_of_other_tests_are_not_charged(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("all")
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    # One pipeline needs under 3 MB, the eight together over 15.
    pytester.runpytest("--loraperf-device=cpu", "--gpu-budget=5MB").assert_outcomes(passed=8)


def test_ratio_to_another_strategy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget(ratio=0.01, of="standard_lora")
        def test_cannot_hold(fused_pipeline):
            fused_pipeline(prompt="a ghost")

        @pytest.mark.latency_budget(ratio=100, of="standard_lora")
        def test_holds(fused_pipeline):
            fused_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-rounds=3")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*loraperf latency: fused took *× (*, 3 rounds) the time of standard_lora, over *"]
    )
