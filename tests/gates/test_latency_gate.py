from __future__ import annotations

import pytest

SLOW = """
    import pytest

    @pytest.mark.latency_budget({budget})
    def test_workload(gpu_workload, clock):
        gpu_workload(clock.spend, 2.0)
"""


def test_over_the_budget_fails_with_what_was_found_and_the_limit(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SLOW.format(budget='"1.5s"'))
    result = clocked.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf latency: spend took 2.000 s (2.000 s–2.000 s, 9 rounds), 33% over the latency budget of "
            "1.500 s; make it faster or raise the budget",
            "*loraperf latency*",
            "spend: 2.000 s 2.000 s*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_within_the_budget_passes(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SLOW.format(budget='"2.5s"'))
    clocked.runpytest().assert_outcomes(passed=1)


def test_a_number_is_seconds(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(SLOW.format(budget="1"))
    clocked.runpytest().assert_outcomes(failed=1)


TWO = """
    import pytest

    @pytest.mark.{marker}
    def test_pair(gpu_workload, clock):
        gpu_workload(lambda: clock.spend({new}), name="new")
        gpu_workload(lambda: clock.spend(1.0), name="old")
"""


@pytest.mark.parametrize(
    ("marker", "new", "outcome", "message"),
    [
        ('latency_budget(ratio=1.05, of="old")', 1.04, "passed", ""),
        (
            'latency_budget(ratio=1.05, of="old")',
            1.2,
            "failed",
            "*loraperf latency: new took 1.200× (1.200–1.200, 9 rounds) the time of old, over the latency budget "
            "of 1.05×; look for a step in the wrong order, or raise the limit",
        ),
        ('faster_than("old")', 1.0, "passed", ""),
        ('faster_than("old", by="10%")', 0.89, "passed", ""),
        (
            'faster_than("old", by="10%")',
            0.95,
            "failed",
            "*loraperf faster-than: new took 0.950× (0.950–0.950, 9 rounds) the time of old, over the wanted "
            "0.9× (faster by at least 10%)*",
        ),
        ('faster_than("old")', 1.01, "failed", "*the time of old, over the wanted 1× (no slower)*"),
    ],
)
def test_ratio_gates(clocked: pytest.Pytester, marker: str, new: float, outcome: str, message: str) -> None:
    clocked.makepyfile(TWO.format(marker=marker, new=new))
    result = clocked.runpytest()
    result.assert_outcomes(**{outcome: 1})
    if message:
        result.stdout.fnmatch_lines([message])


NOISY = """
    import random
    import pytest

    @pytest.mark.faster_than("old", by="20%")
    def test_noise(gpu_workload, clock):
        draw = random.Random(1)
        gpu_workload(lambda: clock.spend(draw.lognormvariate(-0.22, 0.3)), name="new")
        gpu_workload(lambda: clock.spend(draw.lognormvariate(0, 0.3)), name="old")
"""


def test_noise_is_inconclusive_and_fails_with_what_to_do(clocked: pytest.Pytester) -> None:
    clocked.makepyfile(NOISY)
    result = clocked.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*cannot tell whether it holds the wanted 0.8×*but * would be held; take more rounds (--loraperf-rounds, "
            "--loraperf-max-seconds) on a quieter machine, or widen the limit"
        ]
    )


@pytest.mark.parametrize("way", ["option", "ini"])
def test_inconclusive_may_warn(clocked: pytest.Pytester, way: str) -> None:
    clocked.makepyfile(NOISY)
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_inconclusive = warn")
    result = clocked.runpytest(*(["--loraperf-inconclusive=warn"] if way == "option" else []))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["warning: new took *"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_rounds(clocked: pytest.Pytester, way: str) -> None:
    clocked.makepyfile(SLOW.format(budget='"1s"'))
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_rounds = 3")
    result = clocked.runpytest(*(["--loraperf-rounds=3"] if way == "option" else []))
    result.stdout.fnmatch_lines(["*, 3 rounds)*"])


@pytest.mark.parametrize("way", ["option", "ini"])
def test_max_seconds_ends_the_rounds_early(clocked: pytest.Pytester, way: str) -> None:
    clocked.makepyfile(SLOW.format(budget='"1s"'))
    if way == "ini":
        clocked.makeini("[pytest]\nloraperf_max_seconds = 5s")
    result = clocked.runpytest(*(["--loraperf-max-seconds=5s"] if way == "option" else []))
    result.stdout.fnmatch_lines(["*, 3 rounds)*"])


def test_a_gate_with_nothing_to_measure_says_so(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1s")
        def test_nothing(gpu_workload):
            pass
    """)
    result = clocked.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*loraperf: the test has a gate but called nothing that can be measured; call its pipeline, or register a "
            "callable with gpu_workload"
        ]
    )


def test_unknown_workload_names_those_registered(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.faster_than("older")
        def test_pair(gpu_workload, clock):
            gpu_workload(lambda: clock.spend(1), name="new")
    """)
    result = clocked.runpytest()
    result.stdout.fnmatch_lines(
        ["*loraperf: no workload named 'older' in this test; registered with gpu_workload: new"]
    )


def test_a_workload_name_is_taken_once(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        def test_pair(gpu_workload, clock):
            gpu_workload(clock.spend, 1)
            gpu_workload(clock.spend, 2)
    """)
    result = clocked.runpytest()
    result.stdout.fnmatch_lines(["*a workload named 'spend' is registered already; give it name="])


def test_race_in_the_body(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest
        from pytest_loraperf.errors import LoraperfError

        def test_race(lora_race, clock):
            race = lora_race(new=lambda: clock.spend(1.0), old=lambda: clock.spend(2.0))
            assert race.interleaved
            assert len(race.samples["new"]) == 9
            assert race.seconds("new") == pytest.approx(1.0)
            assert race.ratio("new", of="old") == pytest.approx(0.5)
            assert race.decide("old", "new", max_ratio=1.0).status == "FAIL"
            with pytest.raises(LoraperfError, match="no arm 'newer' in this race; the arms are new, old"):
                race.seconds("newer")

        def test_alone(lora_race):
            lora_race(new=int)

        def test_two_rounds(lora_race):
            lora_race(new=int, old=int, rounds=2)
    """)
    result = clocked.runpytest()
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*lora_race compares at least two arms; name strategies, or give callables by keyword",
            "*lora_race: rounds=2; at least 3 are needed",
        ]
    )
