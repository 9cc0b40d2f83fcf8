"""What the charts show, by their specifications."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sample_results import EIGHT, GIB, STRATEGIES, with_strategy

from pytest_loraperf.page import rows
from pytest_loraperf.page.draw import Spec, png, svg
from pytest_loraperf.page.figures import CHARTS, figures, picture
from pytest_loraperf.page.tradeoff import points, takeaway, tradeoff
from pytest_loraperf.report.results import LoraCoverage, Ratio, Results, SetupStep, StepSeconds, StrategyResult

WIDTH = 536
Draw = Callable[[Results, int], Spec | None]


def drawn(draw: Draw, results: Results) -> Spec:
    spec = draw(results, WIDTH)
    assert spec is not None
    return spec


def values(spec: Spec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = spec["data"]["values"]
    return found


def texts(spec: Spec) -> str:
    return str(svg(spec, "it", "a chart"))


def test_the_front_is_what_no_right_strategy_beats_in_both() -> None:
    front = {each.name for each in points(EIGHT) if each.front}
    assert front == {"fused_then_quantize", "low_vram_optimized"}
    fast_mistake = with_strategy("quantize_then_fuse", latency=STRATEGIES["fused_then_quantize"].latency)
    best = replace(
        fast_mistake,
        strategies={
            **fast_mistake.strategies,
            "quantize_then_fuse": replace(
                fast_mistake.strategies["quantize_then_fuse"], vram=STRATEGIES["low_vram_optimized"].vram
            ),
        },
    )
    assert {each.name for each in points(best) if each.front} == front


def test_equal_strategies_are_both_on_the_front() -> None:
    same = STRATEGIES["fused"]
    both = replace(EIGHT, strategies={"a": same, "b": same})
    assert all(each.front for each in points(both))


@pytest.mark.parametrize(
    ("budget", "drawn_there", "said"),
    [(24 * GIB, True, False), (400 * GIB, False, True), (None, False, False)],
)
def test_the_budget_is_a_line_or_told_in_words(budget: int | None, drawn_there: bool, said: bool) -> None:
    results = replace(EIGHT, gpu_budget=budget)
    assert (">budget<" in texts(drawn(tradeoff, results))) == drawn_there
    assert (">budget<" in texts(drawn(rows.memory, results))) == drawn_there
    assert ("The budget is far to the right" in takeaway(results)) == said


def test_the_takeaway_names_the_front_and_the_mistakes() -> None:
    assert takeaway(EIGHT) == (
        "Left is smaller, low is faster. No other strategy beats low_vram_optimized and fused_then_quantize in both. "
        "✕ is a mistake in the order of steps."
    )


def test_every_strategy_has_its_name_at_its_point() -> None:
    shown = texts(drawn(tradeoff, EIGHT))
    assert all(f">{name}<" in shown for name in STRATEGIES)


def test_ratios_in_turns_are_hollow() -> None:
    turns = with_strategy("fused", ratio=Ratio("standard_lora", 0.8, (0.5, 1.2), interleaved=False))
    by_name = {row["row"]: row for row in values(drawn(rows.ratios, turns))}
    assert (by_name["fused"]["shared"], by_name["low_vram"]["shared"]) == (False, True)
    assert "standard_lora" not in by_name


def test_an_interval_without_an_end_is_cut() -> None:
    wide = with_strategy("fused", ratio=Ratio("standard_lora", 0.8, (0.0, 1e300), interleaved=False))
    spec = drawn(rows.ratios, wide)
    low, high = next((row["low"], row["high"]) for row in values(spec) if row["row"] == "fused")
    assert 0 < low < 0.8 < high < 1e5
    assert "NaN" not in texts(spec)


def test_phases_of_memory() -> None:
    found = [(row["which"], row["x"]) for row in values(drawn(rows.memory, EIGHT)) if row["row"] == "low_vram"]
    assert found == [
        ("set-up peak", pytest.approx(2.9)),
        ("resident", pytest.approx(1.1)),
        ("run-time peak", pytest.approx(6.9)),
    ]


def test_steps_of_the_set_up_by_kind() -> None:
    steps = (SetupStep("quantize[fp8_storage]", 3.0, 1), SetupStep("warm the oven", 1.0, 1))
    spec = drawn(rows.setup, with_strategy("fused", setup=steps))
    found = [(row["step"], row["seconds"]) for row in values(spec) if row["row"] == "fused"]
    assert found == [("quantize", 3.0), ("other", 1.0)]
    assert all(f">{name}<" in texts(spec) for name in ("quantize", "other", "attach"))


def test_the_first_denoising_step_beside_the_others() -> None:
    spec = drawn(rows.denoising, with_strategy("fused", steps_s=StepSeconds(0.5, 0.25)))
    assert [(row["which"], row["x"]) for row in values(spec)] == [("the others", 250.0), ("first step", 500.0)]
    one = drawn(rows.denoising, with_strategy("fused", steps_s=StepSeconds(0.5)))
    assert [row["which"] for row in values(one)] == ["first step"]


def test_gains_of_every_layer_else_the_lowest_and_the_median() -> None:
    layers = {"a": 0.1, "b": 0.101, "c": 0.9, "d": None}
    spec = drawn(rows.gains, with_strategy("fused", lora=LoraCoverage(4, 9, 64, 0.1, 0.5, layers)))
    found = {name: [] for name in STRATEGIES}  # type: dict[str, list[tuple[float, int]]]
    for row in values(spec):
        found[row["row"]].append((row["x"], row["layers"]))
    assert found["fused"] == [(0.1, 2), (0.9, 1)]
    assert found["standard_lora"] == [(0.993, 1), (0.999, 1)]


def test_a_gain_that_is_no_number_is_not_drawn() -> None:
    spec = drawn(rows.gains, with_strategy("fused", lora=LoraCoverage(4, 9, 64, math.nan, 0.5)))
    assert [row["x"] for row in values(spec) if row["row"] == "fused"] == [0.5]
    assert "NaN" not in texts(spec)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_chart_without_data_is_left_out(chart: Any) -> None:
    assert chart.spec(replace(EIGHT, strategies={"empty": StrategyResult()}), WIDTH) is None
    assert chart.spec(replace(EIGHT, strategies={}), WIDTH) is None


def test_drawings_hold_one_text_for_who_cannot_see_them_and_no_style() -> None:
    for figure in figures(EIGHT):
        for drawing in (figure.wide, figure.narrow):
            assert drawing.count("<title") == 1
            assert 'role="img"' in drawing
            assert not any(word in drawing for word in ("<style", "style=", "<script", "href", "<image"))
            assert drawing.count("role=") == 1


def test_ids_of_drawings_are_unique() -> None:
    drawings = "".join(str(each.wide + each.narrow) for each in figures(EIGHT))
    found = re.findall(r' id="([^"]+)"', drawings)
    assert len(found) == len(set(found)) > 10
    used = re.findall(r"url\(#([^)]+)\)", drawings)
    assert set(used) <= set(found)
    assert used


def test_the_picture_holds_every_chart() -> None:
    spec = picture(EIGHT)
    assert spec is not None
    assert [each["title"]["text"] for each in spec["concat"]] == [
        chart.title for chart in CHARTS if chart.name != "denoising"
    ]
    assert png(spec, 0.2).startswith(b"\x89PNG")
    assert picture(replace(EIGHT, strategies={})) is None
