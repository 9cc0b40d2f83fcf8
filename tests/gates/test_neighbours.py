"""Beside other plugins and under pytest's own switches; whole runs in processes of their own where that matters."""

from __future__ import annotations

import json

import pytest

CPU = "--loraperf-device=cpu"


def test_xfail_takes_a_failed_gate(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.xfail(reason="slow for now")
        @pytest.mark.latency_budget("1s")
        def test_slow(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)

        @pytest.mark.xfail(strict=True, reason="slow for now")
        @pytest.mark.latency_budget("1s")
        def test_fast(gpu_workload, clock):
            gpu_workload(clock.spend, 0.5)
    """)
    clocked.runpytest().assert_outcomes(xfailed=1, failed=1)


def test_exit_first_stops_at_a_failed_gate(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1s")
        def test_slow(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)

        def test_next():
            pass
    """)
    clocked.runpytest("-x").assert_outcomes(failed=1)


def test_a_test_that_fails_by_itself_is_not_measured(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1s")
        def test_wrong(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
            assert False, "its own failure"
    """)
    result = clocked.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*its own failure*"])
    assert "loraperf latency" not in result.stdout.str()


def test_debugger_opens_on_a_failed_gate(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1s")
        def test_slow(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    child = clocked.spawn_pytest("--pdb")
    child.expect("over the latency budget of 1.000 s")
    child.expect("Pdb")
    child.sendline("q")
    child.expect("1 failed")


def test_without_the_plugin_nothing_of_it_is_left(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-p", "no:loraperf")
    result.assert_outcomes(passed=1)
    assert "loraperf" not in result.stdout.str().replace("pytest-loraperf", "")


def test_reruns_judge_each_run_anew(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        TIMES = [2.0, 0.5]

        @pytest.mark.flaky(reruns=1)
        @pytest.mark.latency_budget("1s")
        def test_slow_once(gpu_workload, clock):
            seconds = TIMES.pop(0)
            gpu_workload(clock.spend, seconds)
    """)
    result = clocked.runpytest("--loraperf-json=out.json")
    result.stdout.fnmatch_lines(["*1 passed, 1 rerun*"])
    verdicts = json.loads((clocked.path / "out.json").read_text())["verdicts"]
    assert [verdict["status"] for verdict in verdicts] == ["PASS"]


def test_async_tests_are_measured_too(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import asyncio
        import pytest

        @pytest.mark.asyncio
        @pytest.mark.latency_budget("1s")
        async def test_slow(gpu_workload, clock):
            await asyncio.sleep(0)
            gpu_workload(clock.spend, 2.0)
    """)
    clocked.runpytest().assert_outcomes(failed=1)


def test_random_order_gives_the_same_verdicts(clocked: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    clocked.makepyfile("""
        import pytest

        @pytest.mark.parametrize("seconds", [0.5, 2.0, 0.7, 3.0])
        @pytest.mark.latency_budget("1s")
        def test_it(gpu_workload, clock, seconds):
            gpu_workload(clock.spend, seconds)
    """)
    for seed in ("1", "2"):
        result = clocked.runpytest(f"--randomly-seed={seed}")
        result.stdout.fnmatch_lines([f"Using --randomly-seed={seed}"])
        result.assert_outcomes(passed=2, failed=2)


def test_junit_has_each_verdict(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("3s")
        def test_it(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    clocked.runpytest("--junit-xml=out.xml")
    xml = (clocked.path / "out.xml").read_text()
    assert '<property name="loraperf_latency" value="PASS: spend took 2.000 s' in xml


def test_json_has_samples_verdicts_and_the_command(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget(ratio=100, of="standard_lora")
        def test_it(fused_pipeline):
            fused_pipeline(prompt="a ghost")
    """)
    pytester.runpytest(CPU, "--loraperf-json=deep/out.json", "--loraperf-rounds=3").assert_outcomes(passed=1)
    data = json.loads((pytester.path / "deep" / "out.json").read_text())
    fused = data["strategies"]["fused"]
    assert data["schema"] == 1
    assert len(fused["samples_s"]) == fused["latency"]["rounds"] == 3
    assert fused["ratio"]["of"] == "standard_lora"
    assert fused["ratio"]["interleaved"]
    assert [step["step"] for step in fused["setup"]] == ["build", "fuse", "first generation"]
    assert len(fused["steps_s"]) == 2
    (comparison,) = data["comparisons"]
    assert {" ".join(sorted(each.split())) for each in comparison["order"]} == {"fused standard_lora"}
    gains = [fused["lora"].pop(name) for name in ("gain_min", "gain_median")]
    assert gains == pytest.approx([1, 1], abs=0.02)
    assert fused["lora"] == {"layers_matched": 28, "layers_total": 34, "rank": 64, "gains": {}}
    assert fused["vram"]["setup_peak"] >= fused["vram"]["resident"] > 10**6
    found = [(verdict["strategy"], verdict["code"], verdict["status"]) for verdict in data["verdicts"]]
    assert found == [("fused", "lora-effect", "PASS"), ("fused", "latency", "PASS")]
    assert "--loraperf-rounds=3" in data["command"]


def test_results_are_written_though_a_later_test_stops_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1h")
        def test_it(fused_pipeline):
            fused_pipeline()

        def test_stop():
            raise KeyboardInterrupt
    """)
    result = pytester.runpytest_subprocess(CPU, "--loraperf-json=out.json", "--loraperf-rounds=3")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    data = json.loads((pytester.path / "out.json").read_text())
    assert len(data["strategies"]["fused"]["samples_s"]) == 3


def test_needs_gpu_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.needs_gpu(vram="24GB")
        def test_it():
            pass
    """)
    result = pytester.runpytest(CPU, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * needs_gpu: no CUDA device"])


def test_a_strategy_of_the_users_own(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        from pytest_loraperf import FUSE, Step, Strategy

        def pytest_loraperf_strategies(config):
            return [Strategy("mine", (FUSE, Step("quantize", scheme="fp8_compute")))]
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("mine")
        @pytest.mark.output_equivalent(to="standard_lora")
        def test_it(lora_pipeline):
            assert lora_pipeline(prompt="a ghost").image.size == (64, 64)
    """)
    result = pytester.runpytest(CPU)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["mine *PASS"])


def test_two_strategies_of_one_name_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        from pytest_loraperf import FUSE, Strategy

        def pytest_loraperf_strategies(config):
            return [Strategy("fused", (FUSE, FUSE))]
    """)
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: loraperf: strategy fused: the name is taken; choose another"])


def test_what_the_backend_left_out_is_said(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        from pytest_loraperf import COMPILE, FUSE, Strategy

        def pytest_loraperf_strategies(config):
            return [Strategy("mine", (FUSE, COMPILE))]
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("mine")
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
    """)
    result = pytester.runpytest(CPU, "--loraperf-compile=off")
    result.stdout.fnmatch_lines(["mine: compile left out, --loraperf-compile=off"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_json_from_either_place(clocked: pytest.Pytester, way: str) -> None:
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_json = out.json")
    clocked.makepyfile("def test_it(): pass")
    clocked.runpytest(*(["--loraperf-json=out.json"] if way == "option" else [])).assert_outcomes(passed=1)
    assert json.loads((clocked.path / "out.json").read_text())["strategies"] == {}


def test_progress_is_shown_on_a_terminal(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("3s")
        def test_it(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    child = clocked.spawn_pytest("", expect_timeout=60.0)
    child.expect("loraperf: spend: warming up")
    child.expect("loraperf: spend: round 9 of at most 150")
    child.expect("1 passed")


def test_progress_is_quiet_elsewhere(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("3s")
        def test_it(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    result = clocked.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    assert ": round " not in result.stdout.str() + result.stderr.str()
