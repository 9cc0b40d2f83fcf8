from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_loraperf.units import parse_duration
from pytest_loraperf.verdict import Status, decide
from pytest_loraperf.verdict.equivalence import DEFAULT_REL_L2, Distances, Limits, judge_equivalence, judge_outputs
from pytest_loraperf.verdict.gates import (
    format_limit,
    format_seconds,
    judge_card,
    judge_faster,
    judge_latency,
    judge_ratio,
    judge_vram,
)

GB = 2**30
NEAR = Distances(rel_l2=0.01, max_abs=0.1, cosine=0.9999, psnr=40.0, effect_kept=0.95, image={"psnr": 38.0})


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(rel_l2=0.01), Status.PASS),
        (Limits(rel_l2=0.0099), Status.FAIL),
        (Limits(max_abs=0.1, cosine=0.999, psnr=40, image_psnr=38), Status.PASS),
        (Limits(max_abs=0.09), Status.FAIL),
        (Limits(cosine=0.99999), Status.FAIL),
        (Limits(psnr=41), Status.FAIL),
        (Limits(image_psnr=39), Status.FAIL),
    ],
)
def test_limits_on_outputs(limits: Limits, status: Status) -> None:
    assert judge_equivalence("fused", "standard_lora", NEAR, limits).status is status


def test_an_image_limit_without_an_image_fails() -> None:
    found = Distances(0.0, 0.0, 1.0, math.inf)
    assert judge_equivalence("a", "b", found, Limits(image_psnr=1)).status is Status.FAIL


def test_nan_fails_every_limit() -> None:
    found = Distances(math.nan, math.nan, math.nan, math.nan)
    verdict = judge_equivalence("a", "b", found, Limits(rel_l2=1, psnr=1))
    assert verdict.message.count("nan") == 2


@pytest.mark.parametrize(("kept", "status"), [(0.29, Status.FAIL), (0.31, Status.PASS), (math.nan, Status.PASS)])
def test_a_lost_effect_fails_though_the_output_is_near(kept: float, status: Status) -> None:
    found = Distances(0.001, 0.0, 1.0, 60.0, effect_kept=kept)
    verdict = judge_equivalence("a", "b", found, Limits(rel_l2=0.02))
    assert verdict.status is status
    assert ("no effect" in verdict.message) is (status is Status.FAIL)


FAR = replace(NEAR, rel_l2=0.5)
FARTHER = replace(NEAR, rel_l2=0.7)
LOST = replace(NEAR, effect_kept=0.1)
UNKNOWN = replace(NEAR, effect_kept=math.nan)
NO_NUMBERS = Distances(math.nan, math.nan, math.nan, math.nan, effect_kept=math.nan)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([NEAR, NO_NUMBERS], "relative L2 nan"),
        ([NO_NUMBERS, FAR], "relative L2 nan"),
        ([FAR, FARTHER, NEAR], "relative L2 0.7"),
        ([UNKNOWN, LOST], "the LoRA had no effect"),
        ([NEAR, LOST, FAR], "the LoRA had no effect"),
    ],
)
def test_of_several_outputs_the_one_that_fails_is_told(found: list[Distances], said: str) -> None:
    for each in (found, found[::-1]):
        verdict = judge_outputs("fused", "standard_lora", each, Limits(rel_l2=0.02))
        assert verdict.status is Status.FAIL
        assert said in verdict.message


def test_of_several_that_pass_the_most_distant_is_told() -> None:
    found = [replace(NEAR, rel_l2=0.001), NEAR, UNKNOWN, replace(NEAR, effect_kept=None)]
    assert judge_outputs("fused", "standard_lora", found, Limits(rel_l2=0.02)).message == (
        "fused: equivalent to standard_lora (relative L2 0.0100)"
    )


@pytest.mark.parametrize(
    ("scheme", "limit"), [(None, 0.02), ("fp8_storage", 0.08), ("torchao_fp8_w8a8", 0.08), ("users_own", 0.08)]
)
def test_defaults_by_scheme(scheme: str | None, limit: float) -> None:
    assert Limits().or_default(scheme) == Limits(rel_l2=limit)
    assert Limits(psnr=30).or_default(scheme) == Limits(psnr=30)
    assert DEFAULT_REL_L2[None] < limit or scheme is None


@pytest.mark.parametrize(
    ("samples", "limit", "message"),
    [
        (
            [1.0],
            100.0,
            "a took 1.000 s (1 round): cannot tell whether it holds the latency budget of 100.0 s; take more rounds "
            "(--loraperf-rounds, --loraperf-max-seconds) on a quieter machine, or widen the limit",
        ),
        (
            [1.0, 1.1, 1.2],
            2.0,
            "a took 1.100 s (333.3 ms–3.600 s, 3 rounds): cannot tell whether it holds the latency budget of 2.000 s, "
            "but 3.600 s would be held; take more rounds (--loraperf-rounds, --loraperf-max-seconds) on a quieter "
            "machine, or widen the limit",
        ),
    ],
)
def test_few_samples_cannot_tell(samples: list[float], limit: float, message: str) -> None:
    found = judge_latency("a", samples, limit)
    assert (found.status, found.message, found.tighter) == (Status.INCONCLUSIVE, message, None)


class TestPassedByFar:
    def test_seconds(self) -> None:
        assert judge_latency("a", [1.0, 1.0, 1.1], 60.0).tighter == '@pytest.mark.latency_budget("3.3s")'
        assert judge_latency("a", [1.0] * 9, 1.2).tighter == '@pytest.mark.latency_budget("1s")'
        assert judge_latency("a", [1.0] * 9, 1.1).tighter is None

    @pytest.mark.parametrize(("ratio", "tighter"), [(0.5, "0.5"), (0.517, "0.52"), (0.95, None)])
    def test_ratios(self, ratio: float, tighter: str | None) -> None:
        found = decide([ratio] * 9, [1.0] * 9, max_ratio=1.05)
        line = None if tighter is None else f'@pytest.mark.latency_budget(ratio={tighter}, of="b")'
        assert judge_ratio("a", "b", found, 1.05, {}).tighter == line

    def test_an_arm_against_itself_is_no_win(self) -> None:
        found = decide([1.0] * 9, [1.0] * 9, max_ratio=2.5)
        assert judge_ratio("a", "a", found, 2.5, {}).tighter is None

    @pytest.mark.parametrize(("ratio", "tighter"), [(0.5, "50%"), (0.517, "48%"), (0.85, None)])
    def test_speed_ups(self, ratio: float, tighter: str | None) -> None:
        found = decide([ratio] * 9, [1.0] * 9, max_ratio=0.9)
        line = None if tighter is None else f'@pytest.mark.faster_than("b", by="{tighter}")'
        assert judge_faster("a", "b", found, 0.1, {}).tighter == line

    def test_a_tightened_limit_is_held(self) -> None:
        for value in (0.0123, 0.99, 1.0, 3.3, 12.01, 987.6):
            assert float(format_limit(value)) >= value * (1 - 1e-12)
            assert float(format_limit(value)) < value * 1.11


@pytest.mark.parametrize(("used", "status"), [(14 * GB, Status.PASS), (14 * GB + 1, Status.FAIL)])
def test_a_budget_may_be_used_to_the_last_byte(used: int, status: Status) -> None:
    assert judge_vram("a", "runtime", used, 14 * GB, {"runtime": used}, "VRAM").status is status
    assert judge_card("the test", used, "runtime", 14 * GB, "VRAM", {}, {}).status is status


@pytest.mark.parametrize("seconds", [2.3e-6, 0.999e-3, 1e-3, 0.0123, 0.9999, 1.0, 59.9, 1234.0])
def test_a_limit_to_paste_is_read_back_and_holds(seconds: float) -> None:
    assert seconds * (1 - 1e-9) <= parse_duration(format_seconds(seconds)) < seconds * 1.11
