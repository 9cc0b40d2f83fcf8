"""Rows of one run that were built from other models or adapters have names of their own."""

from __future__ import annotations

from pytest_loraperf.report.naming import Built, endings, numbered, plain

FIRST = Built("synthetic:tiny", ("a.safetensors:1",))


def test_the_first_is_called_by_the_strategy_alone_and_others_by_what_differs() -> None:
    others = [
        FIRST,
        Built("synthetic:tiny", ("b.safetensors:0.5", "c.safetensors:1")),
        Built("synthetic:full", ("a.safetensors:1",)),
        Built("synthetic:full"),
    ]
    assert endings(others) == [
        "",
        " (b.safetensors:0.5, c.safetensors:1)",
        " (synthetic:full)",
        " (synthetic:full, a synthetic adapter)",
    ]


def test_files_of_one_name_in_several_folders_are_told_apart_by_a_number() -> None:
    found = endings([FIRST, FIRST, Built("m"), Built("m"), FIRST])
    assert found == ["", " #2", " (m, a synthetic adapter)", " (m, a synthetic adapter) #2", " #3"]
    assert [numbered(f"fused{ending}") for ending in found] == ["", " #2", "", " #2", " #3"]
    assert {plain(f"fused{ending}") for ending in found} == {"fused"}
