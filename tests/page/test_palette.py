"""Colours that can be read, light and dark, and are told apart by what draws with them."""

from __future__ import annotations

import pytest

from pytest_loraperf.page.palette import DARK, LIGHT, as_variables

TEXT = ("ink", "soft", "accent", "pass", "fail", "unsure")
MARKS = [role for role in LIGHT if role.startswith("step-")] + ["muted"]


def luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "card"])
def test_contrast(colours: dict[str, str], ground: str) -> None:
    assert {
        role: contrast(colours[role], colours[ground])
        for role in TEXT
        if contrast(colours[role], colours[ground]) < 4.5
    } == {}
    # What is no text, WCAG 2 asks 3 of; the grey of "build" is beside the others, and named.
    few = {role for role in MARKS if contrast(colours[role], colours[ground]) < 3}
    assert few <= {"step-build"}


def test_both_have_the_same_roles_and_no_colour_twice() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_a_drawing_takes_its_colours_from_the_page() -> None:
    assert as_variables(f'<path fill="{LIGHT["accent"]}"/>') == '<path fill="var(--accent)"/>'
