"""What tests leave behind: named, held to a limit, and charged to no later test."""

from __future__ import annotations

import pytest

CPU = "--loraperf-device=cpu"
MB = 2**18  # float32 values

SUITE = f"""
    import pytest
    import torch

    KEPT = []

    @pytest.fixture(scope="module")
    def weights():
        yield torch.ones(8 * {MB})

    @pytest.fixture
    def batch():
        return torch.ones(4 * {MB})

    def test_tidy(weights, batch):
        assert (weights.sum() + batch.sum()) > 0

    def test_leaky(weights):
        KEPT.append(torch.ones(6 * {MB}) * 2)

    def test_fails(weights):
        big = torch.ones(5 * {MB}) * 2
        raise AssertionError(big.shape)

    def test_after(weights, gpu_workload):
        model = torch.ones(3 * {MB}) * 2
        gpu_workload(lambda: model.sum())
"""
LEFT = (
    "the test left 6 MB of tensor bytes behind, held by test_suite.KEPT, 5 MB over the limit of 1 MB; "
    "let go of it in the test, or raise the limit"
)


def test_a_test_that_leaves_more_than_the_limit_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest(CPU, "--gpu-leak-limit=1MB", "-v")
    # A fixture that lives on, frames of a failure and callables to be measured are no leaks.
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaky*", f"loraperf vram-leak: {LEFT}"])
    result.stdout.fnmatch_lines(["*loraperf vram-leak*", "*6 MB  test_suite.KEPT"])


def test_the_limit_may_stand_in_the_ini_and_on_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_suite=SUITE.replace("def test_leaky", '@pytest.mark.vram_leak("10MB")\n    def test_leaky')
    )
    pytester.makeini("[pytest]\ngpu_leak_limit = 1MB\n")
    pytester.runpytest(CPU).assert_outcomes(passed=3, failed=1)


def test_the_marker_alone_holds_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_suite=SUITE.replace("def test_leaky", '@pytest.mark.vram_leak("2MB")\n    def test_leaky')
    )
    result = pytester.runpytest(CPU)
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["loraperf vram-leak: the test left 6 MB * over the limit of 2 MB*"])


def test_what_is_left_behind_is_told_and_not_charged_to_the_next(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    suite = SUITE.replace("raise AssertionError(big.shape)", "assert big.shape")
    pytester.makepyfile(test_suite=suite)
    # The module's weights count (8 MB): with the 6 MB of another test 18 MB would not hold the last tests.
    result = pytester.runpytest(CPU, "--gpu-budget=20MB")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "warning: test_suite.py::test_leaky left 6 MB of tensor bytes behind; tests after it are not charged for "
            "that, --gpu-leak-limit=1MB makes it a failure and names what holds it"
        ]
    )


def test_what_the_suite_holds_from_the_start_still_counts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest(CPU, "--gpu-budget=6MB", "-k", "tidy")
    result.assert_outcomes(failed=1)


def test_a_limit_that_is_no_size(pytester: pytest.Pytester) -> None:
    pytester.makepyfile('import pytest\n@pytest.mark.vram_leak("some")\ndef test_it(): pass\n')
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(
        ["*pytest.mark.vram_leak: size 'some': write a positive number and a unit, such as 14GB or 512MiB"]
    )
    result = pytester.runpytest("--gpu-leak-limit=0MB")
    result.stderr.fnmatch_lines(["ERROR: loraperf: --gpu-leak-limit: size '0MB': write a positive number*"])


def test_a_strategys_pipeline_stays_and_is_no_leak(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_generates(standard_lora_pipeline):
            standard_lora_pipeline(steps=2)
        """
    )
    pytester.runpytest(CPU, "--gpu-leak-limit=1KB").assert_outcomes(passed=1)


@pytest.mark.parametrize("fixture", ["fused_pipeline", "lora_race"])
def test_the_marker_is_not_for_a_test_of_pipelines(pytester: pytest.Pytester, fixture: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.vram_leak('1MB')\ndef test_it({fixture}): pass\n")
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(
        [
            "*pytest.mark.vram_leak: the test uses strategies' pipelines, which stay built for later tests; "
            "hold tests of your own code"
        ]
    )


@pytest.mark.parametrize("name", ["lora", "fused"])
def test_a_fixture_of_the_users_own_is_no_pipeline(pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(f"""
        import pytest
        import torch

        KEPT = []

        @pytest.fixture
        def {name}():
            return torch.ones(3 * {MB})

        def test_leaky({name}):
            KEPT.append({name} * 2)
    """)
    pytester.runpytest(CPU, "--gpu-leak-limit=1MB").assert_outcomes(passed=1, errors=1)


def test_a_fixture_that_fails_hides_no_leak(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"""
        import pytest
        import torch

        @pytest.fixture(scope="module")
        def vae():
            return torch.ones(8 * {MB}) * 2

        @pytest.fixture(scope="module")
        def optional():
            pytest.skip("not here")

        @pytest.fixture(scope="module")
        def model(request):
            request.getfixturevalue("vae")
            try:
                request.getfixturevalue("optional")
            except pytest.skip.Exception:
                return torch.ones(4 * {MB}) * 2

        def test_tidy(model):
            pass

        def test_leaky(model):
            pytest.kept = torch.ones(2 * {MB}) * 2
    """)
    result = pytester.runpytest(CPU, "--gpu-leak-limit=1MB")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["loraperf vram-leak: the test left 2 MB of tensor bytes behind, held by pytest.kept*"]
    )
