"""Each code that a verdict can have is explained."""

from __future__ import annotations

from typing import get_args

import pytest

from pytest_loraperf.markers import MARKERS
from pytest_loraperf.options import OPTIONS
from pytest_loraperf.verdict.codes import MEANINGS, Code


def test_every_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(get_args(Code))


@pytest.mark.parametrize("code", MEANINGS)
def test_who_asks_for_it_is_a_marker_or_an_option_that_there_is(code: Code) -> None:
    known = {*MARKERS, *(option.flag for option in OPTIONS), "loraperf compare", "loraperf history"}
    asked = MEANINGS[code][0].split("`")[1::2]
    assert set(asked) <= known
    assert asked or code == "error"
