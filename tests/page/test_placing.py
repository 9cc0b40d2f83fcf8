"""Names beside points: none covers another where there is room."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.page.placing import Box, _box, place

coordinates = st.tuples(st.floats(0, 400), st.floats(0, 300))


def boxes(points: list[tuple[float, float]], names: list[str]) -> list[Box]:
    found = place(points, names, 400, 300)
    return [_box(*point, name, each) for point, name, each in zip(points, names, found, strict=True)]


def test_a_name_is_right_of_its_point_where_there_is_room() -> None:
    (found,) = place([(100, 100)], ["fused"], 400, 300)
    assert (found.align, found.dy) == ("left", 0)


def test_a_name_at_the_right_edge_is_left_of_its_point() -> None:
    (found,) = place([(395, 100)], ["fused"], 400, 300)
    assert found.align == "right"


def test_names_of_near_points_do_not_cover_each_other() -> None:
    placed = boxes([(100, 100), (104, 103), (110, 98)], ["low_vram", "low_vram_optimized", "fused"])
    assert all(one.covers(other) == 0 for one, other in itertools.combinations(placed, 2))


@given(st.lists(coordinates, max_size=9))
def test_each_point_has_a_name(points: list[tuple[float, float]]) -> None:
    names = [f"strategy {number}" for number, _ in enumerate(points)]
    assert len(place(points, names, 400, 300)) == len(points)
