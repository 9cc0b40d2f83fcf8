"""``pytest --loraperf-forecast``: pipelines are held to their VRAM budgets without a GPU, and nothing else is judged."""

from __future__ import annotations

import json

import pytest

OPTIONS = ("--loraperf-forecast", "--loraperf-model=synthetic:tiny", "-rs")


@pytest.fixture(autouse=True)
def in_order(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let inner runs keep the order of their tests, and warn of nothing that a library does."""
    assert pytester.path.is_dir()  # making it clears the variable, so it comes first
    monkeypatch.setenv(
        "PYTEST_ADDOPTS", "-p no:randomly -o asyncio_default_fixture_loop_scope=function -W ignore::FutureWarning"
    )


CALLS = """
    def test_it(fused_pipeline):
        generation = fused_pipeline(prompt="a ghost")
        assert generation.latents.mean() > 1e9
"""


@pytest.mark.parametrize("way", ["option", "ini"])
def test_what_fits_ends_skipped_with_its_verdict(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile(CALLS)
    options: tuple[str, ...] = OPTIONS
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_forecast = true\nloraperf_model = synthetic:tiny")
        options = ("-rs",)
    result = pytester.runpytest(*options, "--gpu-budget=1GB")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf: *--gpu-budget=1 GB (1073741824 bytes) of forecast VRAM (NVIDIA H100 80GB): pipelines of "
            "fixtures alone, nothing is measured",
            "synthetic:tiny on NVIDIA H100 80GB (forecast), torch *",
            "fused *PASS",
            "VRAM columns: forecast VRAM (no CUDA)",
            "SKIPPED*test_what_fits*.py:1: loraperf: fused needs 722 MB of forecast VRAM (runtime), within the budget "
            "of 1 GB; the rest of the test needs a GPU",
        ]
    )


def test_what_does_not_fit_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CALLS)
    out = pytester.path / "out.json"
    result = pytester.runpytest(*OPTIONS, "--gpu-budget=700MB", f"--loraperf-json={out}")
    result.assert_outcomes(failed=1)
    message = (
        "fused needs 722 MB of forecast VRAM (runtime), 22 MB over the budget of 700 MB; quantize, offload, or raise "
        "the budget"
    )
    result.stdout.fnmatch_lines(
        [
            f"loraperf gpu-budget: {message}",
            "setup *",
            "resident *",
            "runtime *",
            "runtime peak:",
            "* KB  weights of dit.transformer_blocks, 2 blocks (bfloat16)",
            "* made by the generation, most of it live in *",
            "* reserved, not in use (fragmentation)",
            "* 686 MB  CUDA context and libraries",
            "largest: the CUDA context and libraries, which no strategy makes smaller; raise the budget",
        ]
    )
    data = json.loads(out.read_text())
    (verdict,) = data["verdicts"]
    assert (verdict["code"], verdict["status"], verdict["message"]) == ("gpu-budget", "FAIL", message)
    assert set(data["strategies"]["fused"]["vram"]) == {"setup_peak", "resident", "runtime_peak", "allocated_peak"}
    assert data["machine"]["memory_kind"] == "forecast VRAM"


def test_a_marker_holds_its_phase(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("721MB", phase="resident")
        def test_resident(fused_pipeline):
            fused_pipeline()

        @pytest.mark.vram_budget("721MB")
        def test_runtime(fused_pipeline):
            fused_pipeline()

        @pytest.mark.vram_budget("721MB", phase="setup")
        def test_larger(fused_pipeline):
            fused_pipeline(height=512, width=512)
    """)
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf vram: fused needs 722 MB of forecast VRAM (runtime), 1 MB over the budget of 721 MB; *",
            "*: loraperf: fused needs 720 MB of forecast VRAM (resident), within the budget of 721 MB; the rest *",
            "*: loraperf: fused needs 720 MB of forecast VRAM (setup), within the budget of 721 MB; the rest *",
        ]
    )


def test_what_is_not_judged_is_said(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1us")
        @pytest.mark.faster_than("standard_lora", by="99%")
        @pytest.mark.output_equivalent(to="standard_lora", rel_l2=0)
        @pytest.mark.lora_effect(min_gain=1)
        def test_it(fused_pipeline):
            fused_pipeline()

        @pytest.mark.vram_budget("1KB")
        @pytest.mark.vram_leak("1MB")
        def test_plain():
            pass

        def test_workload(gpu_workload):
            gpu_workload(print)

        def test_race(lora_race):
            lora_race("fused", "standard_lora")
    """)
    out = pytester.path / "out.json"
    result = pytester.runpytest(*OPTIONS, f"--loraperf-json={out}")
    result.assert_outcomes(skipped=3, passed=1)
    statuses = [(each["code"], each["status"]) for each in json.loads(out.read_text())["verdicts"]]
    assert statuses == [
        (code, "SKIPPED") for code in ("latency", "faster-than", "equivalence", "lora-effect", "vram", "vram-leak")
    ]
    why = "not judged: a forecast runs nothing on a GPU"
    result.stdout.fnmatch_lines(
        [
            f"forecast: gates on {code} are {why}"
            for code in ("latency", "faster-than", "equivalence", "lora-effect", "vram-leak")
        ]
    )
    result.stdout.fnmatch_lines_random(
        [
            "forecast: *::test_plain: vram_budget is not judged: only the pipelines of fixtures are forecast",
            "*: loraperf: fused needs 722 MB of forecast VRAM (runtime), and no budget is given; the rest of the test "
            "needs a GPU",
            "*: loraperf: gpu_workload takes any callable, and only pipelines are forecast",
            "*: loraperf: lora_race compares times, and a forecast has none",
        ]
    )


def test_tests_without_a_pipeline_run_as_ever(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        def test_passes():
            pass

        def test_fails():
            assert 0

        def test_skips():
            pytest.skip("for a reason of its own")

        @pytest.mark.needs_gpu()
        def test_on_a_gpu():
            raise AssertionError
    """)
    result = pytester.runpytest(*OPTIONS, "--gpu-budget=1KB", "--loraperf-device=cpu")
    result.assert_outcomes(passed=1, failed=1, skipped=2)
    result.stdout.fnmatch_lines_random(["*for a reason of its own", "*needs_gpu: no CUDA device"])


def test_a_pipeline_is_forecast_whether_it_is_called_or_not(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.needs_gpu(vram="40GB", capability="9.0")
        @pytest.mark.vram_budget("700MB")
        def test_not_called(fused_pipeline):
            pass

        @pytest.mark.vram_budget("700MB")
        def test_looked_at(fused_pipeline):
            fused_pipeline.pipeline.dit

        @pytest.mark.needs_gpu(vram="90GB")
        def test_larger_card(fused_pipeline):
            raise AssertionError
    """)
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(failed=2, skipped=1)
    result.stdout.fnmatch_lines(["*needs_gpu: NVIDIA H100 80GB has 79.2 GB of VRAM, the test needs 90 GB"])


def test_what_cannot_be_forecast_fails_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(scope="session")
        def lora_model():
            def build(device):
                raise ValueError("no such weights")
            return build

        def test_it(fused_pipeline):
            fused_pipeline()

        def test_request(fused_pipeline):
            fused_pipeline(size=3)
    """)
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "loraperf: the build function lora_model.<locals>.build raised ValueError: no such weights (*.py:*)",
            "loraperf: request: no field size; the fields are prompt, *",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_what_cannot_be_generated_fails_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(no_lora_pipeline):
            no_lora_pipeline(steps=1)
    """)
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["loraperf: no_lora: request: steps=1; QwenImagePipeline's scheduler gives NaN below 2"]
    )


def test_a_baseline_is_not_looked_at_and_cannot_be_stored(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest(*OPTIONS, "--loraperf-baseline=missing.json", "--loraperf-strict").assert_outcomes(passed=1)
    result = pytester.runpytest(*OPTIONS, "--loraperf-baseline=missing.json", "--loraperf-update-baseline")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: --loraperf-forecast: nothing is timed; leave out --loraperf-update-baseline"]
    )


@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_forecast_has_no_limit_in_time(pytester: pytest.Pytester, way: str) -> None:
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_limits = true")
    result = pytester.runpytest(*OPTIONS, *(["--loraperf-limits"] if way == "option" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: --loraperf-forecast: nothing is timed; leave out --loraperf-limits"]
    )


def test_workers_send_their_forecasts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CALLS)
    out = pytester.path / "out.json"
    result = pytester.runpytest_subprocess(*OPTIONS, "-n1", "--gpu-budget=700MB", f"--loraperf-json={out}")
    result.assert_outcomes(failed=1)
    data = json.loads(out.read_text())
    assert data["strategies"]["fused"]["vram"]["runtime_peak"] > 700 * 2**20
    assert [verdict["status"] for verdict in data["verdicts"]] == ["FAIL"]


def test_what_no_forecast_can_hold_is_said_of_the_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest(
        *OPTIONS, "--gpu-leak-limit=1MB", "--loraperf-baseline=gone.json", "--loraperf-strict"
    )
    result.assert_outcomes(passed=1)
    why = "not judged: a forecast runs nothing on a GPU"
    result.stdout.fnmatch_lines(
        [f"forecast: {flag} is {why}" for flag in ("--gpu-leak-limit", "--loraperf-baseline")]
    )
