"""A sweep as a picture, SVG, PNG or a page: seconds an image of each strategy, a chart for each axis."""

from __future__ import annotations

from html import escape
from pathlib import Path

import vl_convert

from pytest_loraperf.page.axes import CONFIG, shortened
from pytest_loraperf.page.draw import Spec, png
from pytest_loraperf.page.palette import LIGHT
from pytest_loraperf.report.results import Results
from pytest_loraperf.writable import write_whole

_UNITS = {"resolution": "pixels a side", "height": "pixels", "width": "pixels", "batch": "images"}


def write_plot(path: Path, results: Results) -> None:
    """Write the picture of a sweep whole or not at all.

    Raises:
        LoraperfError: it cannot be written.
    """
    spec = sweep_spec(results)
    if path.suffix == ".png":
        write_whole(path, "report", png(spec))
        return
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    if path.suffix == ".html":
        title = escape(_title(results))
        drawn = f'<!doctype html><meta charset="utf-8"><title>{title}</title>\n{drawn}\n'
    write_whole(path, "report", drawn)


def sweep_spec(results: Results) -> Spec:
    """Return the charts beside each other; a point that failed is left out."""
    axes = dict.fromkeys(point.axis for point in results.sweep)
    return {
        "title": {"text": _title(results), "fontSize": 16, "offset": 16},
        "hconcat": [_chart(results, axis) for axis in axes],
        "padding": 24,
        "background": LIGHT["card"],
        "config": CONFIG | {"background": LIGHT["card"]},
    }


def _title(results: Results) -> str:
    return shortened(f"{results.model} on {results.machine.name}", 90)


def _chart(results: Results, axis: str) -> Spec:
    rows = [
        {
            "x": point.value,
            "y": point.latency.median_s,
            "low": point.latency.ci_s[0],
            "high": point.latency.ci_s[1],
            "strategy": shortened(point.strategy, 40),
        }
        for point in results.sweep
        if point.axis == axis and point.latency is not None
    ]
    values = sorted({point.value for point in results.sweep if point.axis == axis})
    unit = _UNITS.get(axis)
    x = {
        "field": "x",
        "type": "quantitative",
        "title": f"{axis}, {unit}" if unit else axis,
        "axis": {"values": values},
        "scale": {"zero": False, "padding": 12},
    }
    y = {"field": "y", "type": "quantitative", "title": "seconds an image", "scale": {"zero": True}}
    color = {"field": "strategy", "type": "nominal", "scale": {"scheme": "tableau10"}}
    return {
        "data": {"values": rows},
        "width": 420,
        "height": 300,
        "encoding": {"x": x, "color": {**color, "legend": {"columns": 3, "title": None, "orient": "bottom"}}},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y}},
            {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 1}, "encoding": {"y": y}},
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.5},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
        ],
    }
