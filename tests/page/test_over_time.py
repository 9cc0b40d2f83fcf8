"""The charts of memory over a generation, by their specifications."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import EIGHT, GIB, STRATEGIES, over_a_generation, with_strategy

from pytest_loraperf.page.over_time import followed, legend, over_time, steps_of
from pytest_loraperf.page.write import page
from pytest_loraperf.report.results import MemoryOverTime, Results

FUSED = with_strategy("fused", memory=over_a_generation(40.0))


def test_moments_are_placed_by_denoising_steps() -> None:
    memory = MemoryOverTime((0.0, 1.0, 2.0, 3.0, 7.0, 11.0, 13.0), (1,) * 7, (1,) * 7, (2.0, 3.0, 11.0))
    assert steps_of(memory) == [-1.0, -0.5, 0.0, 1.0, 1.5, 2.0, 3.0]


def test_without_steps_there_is_the_generation_alone() -> None:
    assert steps_of(MemoryOverTime((0.0, 1.0, 4.0), (1, 1, 1), (1, 1, 1))) == [-1.0, -0.75, 0.0]


def test_each_strategy_that_was_followed_has_a_chart() -> None:
    assert list(over_time(EIGHT, 250)) == []
    ((name, spec),) = over_time(FUSED, 250)
    assert name == "fused"
    needed = [row["needed"] for row in spec["data"]["values"]]
    assert (min(needed), max(needed)) == (20.0, 40.0)
    assert [row["step"] for row in spec["data"]["values"]][::2] == [-1, 0, 1, 2, 3, 4, 5]


def test_all_charts_are_on_one_scale() -> None:
    two = replace(
        FUSED,
        strategies={
            **FUSED.strategies,
            "low_vram": replace(STRATEGIES["low_vram"], memory=over_a_generation(7.0)),
        },
    )
    scales = [spec["layer"][0]["encoding"]["y"]["scale"] for _, spec in over_time(two, 250)]
    assert len(scales) == 2
    assert scales[0] == scales[1]


@pytest.mark.parametrize(("budget", "there"), [(24 * GIB, True), (400 * GIB, False), (None, False)])
def test_the_budget_is_a_line_where_it_is_in_sight(budget: int | None, there: bool) -> None:
    results = replace(FUSED, gpu_budget=budget)
    ((_, spec),) = over_time(results, 250)
    lines = [layer for layer in spec["layer"] if layer["mark"]["type"] == "rule"]
    assert [layer["data"]["values"] for layer in lines] == ([[{"budget": 24.0}]] if there else [])
    assert ("; dashed: the budget" in legend(results)) is there


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("VRAM", "Blue: what a card must have; grey: live tensors alone. Before step 0"),
        ("tensor bytes", "Blue: the bytes of live tensors, as there is no CUDA here. Before step 0"),
    ],
)
def test_the_words_say_what_the_lines_are(kind: str, words: str) -> None:
    results = replace(FUSED, machine=replace(FUSED.machine, memory_kind=kind))
    assert words in legend(results)
    assert words in page(results)


def test_many_steps_have_few_marks() -> None:
    ((_, spec),) = over_time(with_strategy("fused", memory=over_a_generation(40.0, steps=50)), 250)
    marked = spec["layer"][0]["encoding"]["x"]["axis"]["values"]
    assert len(marked) <= 7
    assert marked[0] == 0


@pytest.mark.parametrize(
    "memory",
    [
        MemoryOverTime((), (), ()),
        MemoryOverTime((0.0, 1.0), (5,), (5, 5)),
        MemoryOverTime((0.0, 1.0), (0, 0), (0, 0)),
    ],
)
def test_what_is_not_whole_is_not_drawn(memory: MemoryOverTime) -> None:
    results = with_strategy("fused", memory=memory)
    assert followed(results) == {}
    assert "Memory over a generation" not in page(results)


def test_it_is_in_the_results_file_and_comes_back() -> None:
    data = FUSED.to_json()
    plain = data["strategies"]["fused"]["memory"]
    assert set(plain) == {"seconds", "needed", "live", "steps_s"}
    assert all(isinstance(size, int) for size in (*plain["needed"], *plain["live"]))
    assert Results.from_json(data) == FUSED


def test_a_file_of_before_has_none() -> None:
    data = FUSED.to_json()
    for strategy in data["strategies"].values():
        del strategy["memory"]
    assert Results.from_json(data).strategies["fused"].memory is None
