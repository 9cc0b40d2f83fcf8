"""What pytest captures of torch's logs: a failing test is readable, and torch's own use of its logs is not touched."""

from __future__ import annotations

import pytest


def test_a_failing_test_of_a_compiled_pipeline_is_readable(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1us")  # what is replayed is compiled
        def test_it(fused_pipeline): fused_pipeline(steps=2)
    """)
    result = pytester.runpytest_subprocess(
        "--loraperf-model=synthetic:tiny", "--loraperf-device=cpu", "--loraperf-compile=on"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["loraperf latency: fused took * over the latency budget of 1.000 us; *"])
    assert "torch.__trace" not in result.stdout.str()


def test_torchs_traces_are_left_out_and_still_reach_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import logging

        log, seen = logging.getLogger("torch.__trace"), []
        log.propagate = False
        log.setLevel(logging.DEBUG)

        class Reader(logging.Handler):
            def emit(self, record): seen.append(record.getMessage())

        def test_it(caplog):
            log.addHandler(Reader())
            log.debug("an event")
            logging.getLogger("mine").error("what the test logs")
            assert seen == ["an event"]
            assert caplog.messages == ["what the test logs"]
            raise AssertionError("mine")
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * AssertionError: mine", "ERROR * what the test logs"])
    result.stdout.no_fnmatch_line("DEBUG *")


def test_without_pytests_logging_there_is_nothing_to_leave_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess("-p", "no:logging").assert_outcomes(passed=1)
