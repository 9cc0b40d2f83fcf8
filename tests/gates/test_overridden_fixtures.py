"""What a repository's own fixtures, hooks and workloads return by mistake: one clear line, and no test on something else."""

from __future__ import annotations

import pytest

USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("fixture", "returned", "message"),
    [
        ("lora_model", "None", "the fixture lora_model returned None; return a model's name or a build function"),
        ("lora_adapter", "None", "the fixture lora_adapter returned None; return the path of a safetensors file*"),
        ("lora_adapter", "{'a.safetensors': 0.8}", "the fixture lora_adapter returned {'a.safetensors': 0.8}; *"),
        ("lora_adapter", "[('a.safetensors', 0.8)]", "the fixture lora_adapter returned [[]('a.safetensors', *"),
        ("lora_adapter", "iter(['a.safetensors'])", "the fixture lora_adapter returned <list_iterator *; *"),
        ("lora_request", "None", "the fixture lora_request returned None; return a pytest_loraperf.Request, *"),
        ("lora_request", "{'steps': 8}", "the fixture lora_request returned {'steps': 8}; return a *"),
    ],
)
@pytest.mark.parametrize("use", ["fused_pipeline()", "lora_race('fused', 'no_lora', rounds=3)"])
def test_what_an_overridden_fixture_cannot_return(
    pytester: pytest.Pytester, fixture: str, returned: str, message: str, use: str
) -> None:
    pytester.makeconftest(f"""
        import pytest

        @pytest.fixture(scope="session")
        def {fixture}():
            return {returned}
    """)
    pytester.makepyfile(f"def test_it({use.partition('(')[0]}): {use}")
    result = pytester.runpytest("--loraperf-device=cpu")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"loraperf: {message}"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("3", "pytest_loraperf_strategies returned 3; return a list of strategies"),
        ("FUSED", "pytest_loraperf_strategies returned Strategy(name='mine', *; return a list of strategies"),
        ("1 / 0", "pytest_loraperf_strategies raised ZeroDivisionError: division by zero; mend the conftest"),
    ],
)
def test_a_hook_that_returns_no_list(pytester: pytest.Pytester, returned: str, message: str) -> None:
    pytester.makeconftest(f"""
        from pytest_loraperf import FUSE, Strategy

        FUSED = Strategy("mine", (FUSE,))

        def pytest_loraperf_strategies(config):
            return {returned}
    """)
    result = pytester.runpytest()
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {message}"])


@pytest.mark.parametrize(
    ("work", "kind"),
    [("async def work(): pass", "coroutine"), ("def work(): yield", "generator")],
)
def test_a_workload_that_has_done_no_work_is_not_timed(pytester: pytest.Pytester, work: str, kind: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        {work}

        @pytest.mark.latency_budget("10s")
        def test_it(gpu_workload):
            gpu_workload(work)
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "-W", "error")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"loraperf: the workload 'work' returns a {kind}, which has done no work yet; *"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prompt=3", "request: prompt=3; a text is allowed"),
        ("seed='a'", "request: seed='a'; a whole number is allowed"),
        ("cfg='high'", "request: cfg='high'; a number is allowed"),
        ("edit_image=3", "request: edit_image=3; the path of an image is allowed"),
        ("extra=[1]", "request: extra=[[]1]; a mapping of arguments of the pipeline is allowed"),
    ],
)
def test_a_request_of_wrong_types_is_one_line(pytester: pytest.Pytester, given: str, message: str) -> None:
    pytester.makepyfile(f"def test_it(fused_pipeline): fused_pipeline({given})")
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"loraperf: {message}"])
    assert "Traceback" not in result.stdout.str()
