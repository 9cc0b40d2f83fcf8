"""What a run says of its own measurements: what passed by far, and what makes them doubtful."""

from __future__ import annotations

import json

import pytest

from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.nvml import Reading
from pytest_loraperf.session import Session


def test_what_passes_by_far_is_said_with_the_line_to_paste(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("60s")
        def test_far(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)

        @pytest.mark.latency_budget("2.1s")
        def test_near(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    result = clocked.runpytest("--loraperf-json=out.json")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*::test_far passed its",
            "  latency gate by far; it could be:",
            '  @pytest.mark.latency_budget("6s")',
        ]
    )
    result.stdout.no_fnmatch_line("*test_near passed*")
    verdicts = json.loads((clocked.path / "out.json").read_text())["verdicts"]
    assert [each["tighter"] for each in verdicts] == ['@pytest.mark.latency_budget("6s")', None]


def test_a_tightened_gate_still_passes(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("6s")
        def test_far(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    clocked.runpytest().assert_outcomes(passed=1)


def test_what_is_too_short_to_be_timed_is_said(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.faster_than("old")
        def test_short(gpu_workload, clock):
            gpu_workload(lambda: clock.spend(1e-6), name="new")
            gpu_workload(lambda: clock.spend(1.0), name="old")
    """)
    result = clocked.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["validity: new took 1.000 us, too short to be timed; repeat the work inside the", "  callable"]
    )
    result.stdout.no_fnmatch_line("validity: old*")


def test_a_workload_that_raises_while_it_is_measured_fails_with_its_own_error(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import itertools
        import pytest

        @pytest.mark.faster_than("old", by="1%")
        def test_raises(gpu_workload, clock):
            calls = itertools.count()

            def new():
                clock.spend(1.0)
                if next(calls) == 9:
                    raise RuntimeError("round 7 went wrong")

            gpu_workload(new)
            gpu_workload(lambda: clock.spend(1.0), name="old")
    """)
    result = clocked.runpytest("--loraperf-json=out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: round 7 went wrong"])
    (comparison,) = json.loads((clocked.path / "out.json").read_text())["comparisons"]
    assert comparison["errors"] == {"new": "RuntimeError: round 7 went wrong"}
    assert len(comparison["order"]) == 7


def test_an_arm_of_a_race_that_raises_is_said(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        def test_race(lora_race, clock):
            def broken():
                raise RuntimeError("no luck")

            race = lora_race(good=lambda: clock.spend(1.0), fine=lambda: clock.spend(2.0), broken=broken)
            assert race.ratio("fine", of="good") == pytest.approx(2.0)
            with pytest.raises(RuntimeError, match="no luck"):
                race.seconds("broken")
    """)
    result = clocked.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["warning: lora_race: broken raised RuntimeError: no luck"])


def test_what_the_driver_saw_is_said(monkeypatch: pytest.MonkeyPatch, clocked: pytest.Pytester) -> None:
    # The inner run is in this process: its device says that it is a GPU, and nothing is launched on it.
    gpu = Device("cpu", "a card", uuid="GPU-1")
    monkeypatch.setattr(Device, "is_cuda", property(lambda self: self.uuid is not None))
    monkeypatch.setattr(Device, "synchronize", lambda _: None)
    monkeypatch.setattr(Device, "gpu_mark", None)
    monkeypatch.setattr(Session, "device", gpu)
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 0)
    seen = Reading(1980, frozenset(), 60, 8 * 2**30)
    monkeypatch.setattr("pytest_loraperf.gpu.nvml.read", lambda _: seen)
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("2.1s")
        def test_it(gpu_workload, clock):
            gpu_workload(clock.spend, 2.0)
    """)
    result = clocked.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["validity: 7 GB of the GPU's memory are not this process's: other processes use*"]
    )


def test_a_gate_that_raises_costs_no_other_its_verdict(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("60s")
        @pytest.mark.faster_than("old")
        def test_raises(gpu_workload, clock):
            gpu_workload(lambda: clock.spend(1.0), name="new")
            left = [1.0, 1.0]
            gpu_workload(lambda: clock.spend(left.pop()), name="old")
    """)
    result = clocked.runpytest("--loraperf-json=out.json")
    result.assert_outcomes(failed=1)
    verdicts = json.loads((clocked.path / "out.json").read_text())["verdicts"]
    assert [(each["code"], each["status"]) for each in verdicts] == [("latency", "PASS"), ("error", "FAIL")]
    assert verdicts[1]["message"] == "IndexError: pop from empty list"


def test_what_cannot_be_told_in_a_worker_is_said(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1.5s")
        def test_close(gpu_workload, clock):
            gpu_workload(clock.spend, 1.4)
    """)
    result = clocked.runpytest_subprocess(
        "-n1", "--loraperf-inconclusive=warn", "--loraperf-rounds=4", "--loraperf-device=cpu"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["warning: spend took 1.400 s *cannot tell whether it"])


def test_two_arms_of_one_name_are_refused(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        def test_race(lora_race):
            lora_race("fused", fused=int)
    """)
    result = clocked.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*lora_race: two arms are named 'fused'; give the callable another keyword"])
