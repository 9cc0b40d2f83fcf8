"""The gate that nobody has to ask for: the LoRA is in the layers of every pipeline that a test uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter

CPU = "--loraperf-device=cpu"


@pytest.fixture
def weak(pytester: pytest.Pytester) -> Path:
    """An adapter of 1.5 % of the weights: less than most steps of unscaled fp8."""
    dit = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu").dit
    names = [name for name in linear_shapes(dit) if name.startswith("transformer_blocks.")]
    return write_synthetic_adapter(pytester.path / "weak.safetensors", weight_norms(dit, names), strength=0.015)


ONE = """
    import pytest

    @pytest.mark.lora_strategy("quantize_then_fuse", "fused_then_quantize")
    {marker}
    def test_it(lora_pipeline):
        pass
"""


def test_a_weak_adapter_fused_into_fp8_fails_unasked_and_fused_before_passes(
    pytester: pytest.Pytester, weak: Path
) -> None:
    pytester.makepyfile(ONE.format(marker=""))
    result = pytester.runpytest(CPU, f"--loraperf-adapter={weak}", "--loraperf-scheme=fp8_storage")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf lora-effect: quantize_then_fuse: *of the LoRA's intended effect is in transformer_blocks.*",
            "*loraperf lora-effect*",
            "*transformer_blocks.*",
            "FAILED *test_it?quantize_then_fuse?*",
        ]
    )


def test_a_strategy_that_puts_no_lora_in_fails_where_its_effect_is_asked_for(
    pytester: pytest.Pytester, weak: Path
) -> None:
    pytester.makeconftest("""
        from pytest_loraperf import Strategy, Step

        def pytest_loraperf_strategies():
            return [Strategy("forgotten", (Step("quantize"),))]
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("forgotten", "fused")
        @pytest.mark.lora_effect(min_gain=0.5)
        def test_effect(lora_pipeline):
            pass

        @pytest.mark.output_equivalent(to="standard_lora")
        @pytest.mark.lora_strategy("forgotten", "no_lora", "fused")
        def test_output(lora_pipeline):
            lora_pipeline()

        @pytest.mark.lora_strategy("forgotten")
        def test_neither(lora_pipeline):
            pass
    """)
    result = pytester.runpytest(CPU, "-v", f"--loraperf-adapter={weak}", "--loraperf-scheme=fp8_storage")
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*lora-effect: forgotten: none of its steps puts a LoRA in, so it has no effect of one; add attach or "
            "fuse, or leave lora_effect out",
            "*equivalence: forgotten: the LoRA had no effect: the output keeps *",
            "*equivalence: no_lora: the LoRA had no effect: the output keeps 0.00 of the effect that *",
        ]
    )


def test_a_marker_asks_for_less(pytester: pytest.Pytester, weak: Path) -> None:
    pytester.makepyfile(ONE.format(marker="@pytest.mark.lora_effect(min_gain=0)"))
    pytester.runpytest(CPU, f"--loraperf-adapter={weak}", "--loraperf-scheme=fp8_storage").assert_outcomes(
        passed=2
    )


def test_or_for_more_and_the_closest_one_holds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.lora_effect(min_gain=0)

        @pytest.mark.lora_effect(min_gain=0.9999)
        def test_strict(fused_then_quantize_pipeline):
            pass

        def test_loose(fused_then_quantize_pipeline):
            pass
    """)
    result = pytester.runpytest(CPU)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*but at least 0.9999 is needed, and * have less; fuse before quantizing*"])


def test_the_control_has_no_lora_to_look_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(no_lora_pipeline): pass")
    result = pytester.runpytest(CPU)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*lora-effect*")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "*missing a required*argument: 'min_gain'; it is lora_effect(?, min_gain)"),
        ("0.5", "*too many positional arguments; it is lora_effect(?, min_gain)"),
        ("min_gain=2", "*min_gain=2; a number from 0 to 1 is allowed"),
        ("min_gain=None", "*min_gain=None; a number from 0 to 1 is allowed"),
    ],
)
def test_wrong_arguments(pytester: pytest.Pytester, arguments: str, message: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.lora_effect({arguments})
        def test_it(fused_pipeline): pass
    """)
    result = pytester.runpytest()
    result.stderr.fnmatch_lines([message])


def test_without_a_pipeline_it_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_effect(min_gain=0.5)
        def test_it(): pass
    """)
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(
        ["*@pytest.mark.lora_effect: needs lora_pipeline or a strategy's own fixture in the test"]
    )


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_of_an_adapter_fits_nothing_is_said(pytester: pytest.Pytester, weak: Path, workers: str) -> None:
    """Such as the part of a text encoder: the gates cannot be on what no layer of the model takes."""
    state = load_file(weak)
    state |= {f"text_encoder.q.lora_{letter}.weight": torch.ones(4, 4) for letter in "AB"}
    save_file(state, weak)
    pytester.makepyfile("def test_it(fused_pipeline): pass")
    result = pytester.runpytest_subprocess(CPU, workers, f"--loraperf-adapter={weak}", "--loraperf-json=out.json")
    result.assert_outcomes(passed=1)
    unused = "1 of its 29 layers fit none of the model's: text_encoder.q"
    line = f"warning: adapter {weak}: {unused}; the gates are on the rest"
    assert json.loads((pytester.path / "out.json").read_text())["notes"].count(line) == 1
    assert "".join(result.stdout.str().split()).count("".join(line.split())) == 1  # wrapped where the path is long
