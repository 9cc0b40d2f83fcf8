"""Where the name of a point goes: beside it, where it covers no other name or point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

LETTER, HEIGHT, GAP, POINT = 6.8, 14.0, 9.0, 12.0
"""Pixels: a letter's width and a line's height at 12 px, the gap from a point to its name, a point's own size."""


class Box(NamedTuple):
    """A rectangle in pixels, from its left and top edge to its right and bottom one."""

    left: float
    top: float
    right: float
    bottom: float

    def covers(self, other: Box) -> float:
        """Return the area that both have in common."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0) * max(high, 0)


@dataclass(frozen=True)
class Placed:
    """A name: how far from its point in pixels, and at which of its ends it is held."""

    dx: float
    dy: float
    align: str


def place(
    points: Sequence[tuple[float, float]], names: Sequence[str], width: float, height: float
) -> list[Placed]:
    """Return a place for each name, the earlier ones choosing first.

    Args:
        points: from the left and from the top, in pixels.
        names: one for each point.
        width: of the chart.
        height: of the chart.
    """
    marks = [_around(x, y, POINT) for x, y in points]
    taken: list[Box] = []
    found: list[Placed] = []
    for number, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        # A name that touches another point would be read as that one's, so points keep more room than they fill.
        others = [_around(*point, 2 * POINT) for place, point in enumerate(points) if place != number]
        tried = [
            (_cost(_box(x, y, name, each), [*taken, *marks, *others], width, height), rank, each)
            for rank, each in enumerate(PLACES)
        ]
        best = min(tried, key=lambda each: each[:2])[2]
        taken.append(_box(x, y, name, best))
        found.append(best)
    return found


def _around(x: float, y: float, size: float) -> Box:
    return Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)


PLACES = (
    Placed(GAP, 0, "left"),
    Placed(-GAP, 0, "right"),
    Placed(0, -HEIGHT, "center"),
    Placed(0, HEIGHT, "center"),
    Placed(GAP, -HEIGHT, "left"),
    Placed(GAP, HEIGHT, "left"),
    Placed(-GAP, -HEIGHT, "right"),
    Placed(-GAP, HEIGHT, "right"),
    Placed(GAP, -1.9 * HEIGHT, "left"),
    Placed(-GAP, 1.9 * HEIGHT, "right"),
)


def _box(x: float, y: float, name: str, placed: Placed) -> Box:
    wide = len(name) * LETTER
    left = x + placed.dx - {"left": 0.0, "center": wide / 2, "right": wide}[placed.align]
    return Box(left, y + placed.dy - HEIGHT / 2, left + wide, y + placed.dy + HEIGHT / 2)


def _cost(box: Box, taken: Sequence[Box], width: float, height: float) -> float:
    inside = box.covers(Box(0, 0, width, height))
    outside = (box.right - box.left) * (box.bottom - box.top) - inside
    return 3 * outside + sum(box.covers(other) for other in taken)
