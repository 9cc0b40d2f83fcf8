"""A strategy's time over the runs that are stored, with the interval of each."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_loraperf.compare.history import Entry
from pytest_loraperf.page.axes import CONFIG, axis, scale
from pytest_loraperf.page.draw import Spec
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.page.units import seconds_unit

HEIGHT = 96
FEWEST = 2
"""Runs; one alone is no history."""
_LEFT, _RIGHT = 48, 12


def trend(entries: Sequence[Entry], width: int) -> Spec | None:
    """Return the chart of one strategy, in the order of its runs; those that were slower are crosses."""
    found = [each for each in entries if each.latency and each.latency.median_s > 0 and not each.error]
    if len(found) < FEWEST:
        return None
    times = [time for each in found if each.latency for time in (each.latency.median_s, *each.latency.ci_s)]
    unit = seconds_unit(times)
    up = scale((time / unit.size for time in times if time > 0), marks=3)
    rows = [
        {
            "run": number,
            "y": each.latency.median_s / unit.size,
            "low": each.latency.ci_s[0] / unit.size,
            "high": each.latency.ci_s[1] / unit.size,
            "slower": bool(each.change and each.change.status == "FAIL"),
        }
        for number, each in enumerate(found, 1)
        if each.latency
    ]
    x = {
        "field": "run",
        "type": "quantitative",
        "scale": {"domain": [0.5, len(found) + 0.5], "nice": False, "zero": False},
        "axis": None,
    }
    y = {"field": "y", "type": "quantitative", "scale": up.vega(), "axis": axis(up, unit.name)}
    line = {"type": "line", "color": LIGHT["accent"], "strokeWidth": 1.5, "opacity": 0.5}
    rule = {"type": "rule", "color": LIGHT["accent"], "strokeWidth": 2, "opacity": 0.5}
    point = {"type": "point", "filled": True, "opacity": 1, "size": 50, "color": LIGHT["accent"]}
    cross = {"type": "point", "opacity": 1, "size": 80, "strokeWidth": 2.5, "color": LIGHT["fail"]}
    return {
        "data": {"values": rows},
        "width": width - _LEFT - _RIGHT,
        "height": HEIGHT,
        "padding": {"left": _LEFT, "right": _RIGHT, "top": 8, "bottom": 8},
        "autosize": "none",
        "layer": [
            {"mark": line, "encoding": {"x": x, "y": y}},
            {"mark": rule, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": point, "encoding": {"x": x, "y": y}, "transform": [{"filter": "!datum.slower"}]},
            {
                "mark": {**cross, "shape": "M-.7,-.7L.7,.7M.7,-.7L-.7,.7"},
                "encoding": {"x": x, "y": y},
                "transform": [{"filter": "datum.slower"}],
            },
        ],
        "config": CONFIG,
    }
