"""A gate is about the pipeline and the calls of its own test: not those of other fixtures, requests or tests."""

from __future__ import annotations

import json

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
        def test_large_too(fused_pipeline):
            fused_pipeline(height=64, width=64, steps=2)
            fused_pipeline(height=128, width=128, steps=2)
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-model=synthetic:tiny", "-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=1)
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


@pytest.mark.parametrize(
    ("gate", "body", "message"),
    [
        (
            "faster_than('slow', by='0%')",
            "gpu_workload(work, name='slow')",
            "the gate compares 'slow' with itself; register what it is compared with by gpu_workload, and name that in "
            "the marker",
        ),
        (
            "latency_budget(ratio=2, of='b')",
            "gpu_workload(work, name='a'); gpu_workload(work, name='b'); gpu_workload(work, name='c')",
            "no gate of this test is about c: those on time measure a, which it called too; leave out gpu_workload "
            "there, or name a reference in the marker (of=, faster_than)",
        ),
        (
            "latency_budget('1s')",
            "gpu_workload('slow', work)",
            "gpu_workload(function, [*]args, name=…): found 'slow', which cannot be called; give a function",
        ),
    ],
)
def test_a_callable_that_would_not_be_judged(
    pytester: pytest.Pytester, gate: str, body: str, message: str
) -> None:
    pytester.makepyfile(f"""
        import pytest

        def work(): pass

        @pytest.mark.{gate}
        def test_it(gpu_workload):
            {body}
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"loraperf: {message}"])
    assert "Traceback" not in result.stdout.str()


def test_a_callable_beside_a_pipeline(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("1KB")
        @pytest.mark.latency_budget("1h")
        def test_left_alone(fused_pipeline, gpu_workload):
            fused_pipeline()
            gpu_workload(sum, (), name="fused")

        @pytest.mark.latency_budget("1h")
        def test_the_pipeline_itself(fused_pipeline, gpu_workload):
            gpu_workload(fused_pipeline, steps=2)

        @pytest.mark.latency_budget(ratio=1e9, of="plain")
        def test_referred_to(fused_pipeline, gpu_workload):
            fused_pipeline()
            gpu_workload(sum, range(100_000), name="plain")

        def test_no_gate(fused_pipeline, gpu_workload):
            fused_pipeline()
            gpu_workload(sum, (), name="plain")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(passed=2, failed=2)
    rest = (
        "those on time measure fused, which it called too; leave out gpu_workload there, or name a reference in the "
        "marker (of=, faster_than)"
    )
    # What can be judged without it is judged first.
    result.stdout.fnmatch_lines(["loraperf vram: fused needs * over the budget of 1 KB; *"])
    result.stdout.fnmatch_lines([f"*no gate of this test is about fused: {rest}"])
    result.stdout.fnmatch_lines([f"loraperf: no gate of this test is about LoraPipeline: {rest}"])


def test_one_of_several_strategies_may_be_the_reference(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("standard_lora", "fused")
        @pytest.mark.latency_budget(ratio=1e6, of="standard_lora")
        def test_it(lora_pipeline): lora_pipeline()
    """)
    pytester.runpytest("--loraperf-device=cpu").assert_outcomes(passed=2)


def test_a_pipeline_that_is_not_called_has_no_vram_at_run_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("1GB")
        def test_runtime(fused_pipeline): pass

        @pytest.mark.vram_budget("1GB")
        @pytest.mark.vram_budget("1KB", phase="setup")
        def test_both(fused_pipeline): pass

        @pytest.mark.vram_budget("1GB", phase="setup")
        @pytest.mark.vram_budget("1GB", phase="resident")
        def test_built(fused_pipeline): pass
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "loraperf: the pipeline of fused was not called through its fixture (calls of .pipeline are not seen), so its "
            'VRAM at run time is not known; call the fixture, or hold phase="setup" or "resident"'
        ]
    )
    result.stdout.fnmatch_lines(["loraperf vram: fused needs * (setup), * over the budget of 1 KB; *"])


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("1", "lora_race(a=…): found 1, which cannot be called; give a function"),
        (
            "work",
            "the workload 'a' returns a coroutine, which has done no work yet; give a callable that runs it to its end",
        ),
        (
            "Later()",
            "the workload 'a' returns a coroutine, which has done no work yet; give a callable that runs it to its end",
        ),
        (
            "lambda: many()",
            "the workload 'a' returns a generator, which has done no work yet; give a callable that runs it to its end",
        ),
    ],
)
def test_an_arm_of_a_race_that_does_nothing(pytester: pytest.Pytester, arm: str, message: str) -> None:
    pytester.makepyfile(f"""
        async def work(): pass
        def many(): yield

        class Later:
            async def __call__(self): pass

        def test_it(lora_race):
            lora_race(a={arm}, b=lambda: None)
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "-W", "error")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"loraperf: {message}"])


def test_what_a_workload_raises_is_shown_without_frames_of_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def work(): raise StopIteration("mine")

        def test_it(gpu_workload):
            gpu_workload(work)
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * StopIteration: mine"])
    assert "fixtures.py" not in result.stdout.str()


def test_markers_of_module_and_test_add_up(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.vram_budget("1GB")

        @pytest.mark.vram_budget("1KB")
        def test_stricter(fused_pipeline): fused_pipeline()

        @pytest.mark.vram_budget("2GB")
        def test_laxer(fused_pipeline): fused_pipeline()
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-json=out.json")
    result.assert_outcomes(passed=1, failed=1)
    verdicts = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["verdicts"]
    held = [(each["nodeid"].split("::")[-1], each["status"]) for each in verdicts if each["code"] == "vram"]
    assert sorted(held) == [
        ("test_laxer", "PASS"),
        ("test_laxer", "PASS"),
        ("test_stricter", "FAIL"),
        ("test_stricter", "PASS"),
    ]


def test_outputs_of_requests_without_a_seed_are_not_compared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.output_equivalent(to="standard_lora")
        def test_it(fused_pipeline): fused_pipeline(seed=None)
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf: output_equivalent: a request has no seed (seed=None), so each generation starts from other noise "
            "and has another output; give it one"
        ]
    )
