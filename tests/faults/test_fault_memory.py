"""Memory that runs out: the test fails in one line, nothing stays filled, and the next one starts clean."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import (
    AFTER,
    BASELINE,
    BEFORE,
    FAILED,
    FAULTED,
    JSON,
    PASSED,
    SLOW,
    Project,
    accepted,
    read,
    samples,
    verdicts,
)

SAID = "CUDA out of memory. Tried to allocate 2 GiB"
RUN_OUT = f'import torch; run_out(torch.OutOfMemoryError("{SAID}. GPU 0 has a total capacity of 80 GiB"))'
HOST = "run_out(MemoryError())"
ERROR = ("error", "FAIL")
OTHERS = {SLOW: [FAILED], BEFORE: [PASSED], AFTER: [PASSED]}
TOLD = "the test fails with one line; what it filled is let go, and the next test starts clean"

OWN = "the test fails with the error of its own code; what it filled is let go, and the next test starts clean"


@pytest.mark.parametrize(
    ("fault", "when", "found", "message"),
    [
        pytest.param(
            fault,
            when,
            found,
            message,
            marks=pytest.mark.fault("out of memory", told, OWN if "of a test" in told else TOLD),
        )
        for fault, when, told, found, message in [
            (
                RUN_OUT,
                "set-up",
                "set-up of a test",
                [ERROR],
                f"its set-up failed: OutOfMemoryError: {SAID}. GPU 0*",
            ),
            (RUN_OUT, "a round", "measuring", [ERROR], f"faulted: out of memory while it was measured: {SAID}"),
            (
                RUN_OUT,
                "teardown",
                "teardown of a test",
                [PASSED, ERROR],
                f"its teardown failed: OutOfMemoryError: {SAID}*",
            ),
            (HOST, "a round", "measuring", [ERROR], "faulted: out of memory while it was measured: MemoryError"),
        ]
    ],
)
def test_memory_that_runs_out(
    tmp_path: Path, fault: str, when: str, found: list[tuple[str, str]], message: str
) -> None:
    project = Project(tmp_path, fault)
    ended = project.run(JSON, *BASELINE, when=when)
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said(
        f"loraperf: {message}" if when == "a round" else f"E * *Error: {SAID}*",
        f"*{3 if when == 'teardown' else 2} passed*",
    )
    project.check_locks_are_free()
    assert verdicts(project.results) == OTHERS | {FAULTED: found}
    (said,) = (each["message"] for each in read(project.results)["verdicts"] if each["code"] == "error")
    pytest.LineMatcher([said]).fnmatch_lines([message])
    # The suite's next test fails where what was filled is still held.
    assert samples(project.results).get(FAULTED, 0) == {"set-up": 0, "a round": 2, "teardown": 15}[when]
    assert accepted(project.baseline) == [AFTER, BEFORE]


BACKEND = """
    import pytest
    import torch
    from conftest import CLOCK, HELD, Filled, reach
    import pytest_loraperf.backends
    from pytest_loraperf.backends.protocol import Generation, Recipe

    class Pipeline(Filled):
        pass

    class Pretend:
        name, version = "pretend", "1"
        calls = 0

        def recipe(self, strategy, device, choices):
            return Recipe(strategy)

        def build(self, model, device, *, on_cpu):
            pipeline = Pipeline()
            HELD.add(pipeline)
            reach("building")
            HELD.discard(pipeline)
            return pipeline

        def generate(self, pipeline, request, tick):
            CLOCK.spend(2.0)
            Pretend.calls += 1
            reach("a generation")
            if Pretend.calls == 6:
                reach("a round")
            return Generation(torch.zeros(1), None)

    @pytest.fixture(scope="session", autouse=True)
    def pretend():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pytest_loraperf.backends, "load_backend", lambda *_: Pretend())
            yield

    @pytest.mark.latency_budget("3s")
    def test_strategy(no_lora_pipeline):
        no_lora_pipeline()

    @pytest.fixture
    def clean():
        assert not HELD

    @pytest.mark.latency_budget("3s")
    def test_next(clean, gpu_workload, clock):
        gpu_workload(clock.spend, 2.0)
"""


@pytest.mark.parametrize(
    ("when", "message"),
    [
        pytest.param(
            "building",
            f"strategy no_lora: out of memory while it was built: {SAID}",
            marks=pytest.mark.fault("out of memory", "building a strategy", TOLD),
        ),
        pytest.param(
            "a generation",
            f"strategy no_lora: out of memory while it ran: {SAID}",
            marks=pytest.mark.fault("out of memory", "a strategy's first generation", TOLD),
        ),
        pytest.param(
            "a round",
            f"no_lora: out of memory while it was measured: {SAID}",
            marks=pytest.mark.fault("out of memory", "measuring a strategy", TOLD),
        ),
    ],
)
def test_a_strategy_whose_memory_runs_out(tmp_path: Path, when: str, message: str) -> None:
    project = Project(tmp_path, RUN_OUT, BACKEND)
    ended = project.run(JSON, *BASELINE, when=when)
    assert ended.status == pytest.ExitCode.TESTS_FAILED
    ended.check_said(f"loraperf: {message}")
    project.check_locks_are_free()
    assert verdicts(project.results) == {"test_strategy": [ERROR], "test_next": [PASSED]}
    (said,) = (each["message"] for each in read(project.results)["verdicts"] if each["code"] == "error")
    assert said.endswith(message)
    assert accepted(project.baseline) == ["spend"]
