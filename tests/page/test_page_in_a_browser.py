"""The page in a real browser, at the widths of a phone and of a desktop, light and dark."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_results import EIGHT, GIB, STRATEGIES, over_a_generation
from selenium import webdriver as selenium
from test_page import HOSTILE, date, hostile

from pytest_loraperf.compare.history import Run, history
from pytest_loraperf.page.write import write_page
from pytest_loraperf.report.results import read_results

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NEEDED = ("chromium", "chromedriver")
PAGES = ("h200", "cpu", "effect", "hostile", "followed")
SEEN = """
    const shown = box => box.width > 0 && box.height > 0;
    const charts = [...document.querySelectorAll("figure")].map(figure => {
        const drawn = [...figure.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect()).filter(shown);
        return drawn.map(box => [box.left, box.right, box.width, box.height]);
    });
    const scales = [...document.querySelectorAll("svg")].filter(svg => shown(svg.getBoundingClientRect()))
        .map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
    return {
        width: document.documentElement.scrollWidth, inner: innerWidth, charts,
        background: getComputedStyle(document.body).backgroundColor,
        mark: getComputedStyle(document.querySelector("svg path[fill^=var], svg path[stroke^=var]")).stroke,
        smallest: 12 * Math.min(...scales),
        run: window.alerted === undefined && !document.querySelector("script, img"),
    };
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    stored = {
        name: read_results(BENCHMARKS / file)
        for name, file in (("h200", "h200/demo.json"), ("cpu", "cpu/demo.json"), ("effect", "cpu/effect.json"))
    }
    stored["hostile"] = hostile(*HOSTILE)
    stored["followed"] = replace(
        EIGHT,
        strategies={
            name: replace(each, memory=over_a_generation((each.vram.runtime_peak or 0) / GIB))
            for name, each in STRATEGIES.items()
        },
        gpu_budget=24 * GIB,
    )
    found = {name: folder / f"{name}.html" for name in PAGES}
    for name, path in found.items():
        runs = [Run("old", date(1), stored[name]), Run("new", date(2), stored[name])]
        write_page(path, stored[name], history(runs))
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    paths = {name: shutil.which(name) for name in NEEDED}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        reason = f"the page is not looked at: no {' and '.join(missing)} here (Debian: chromium, chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    options = selenium.ChromeOptions()
    # The sandbox of the browser needs a user that is not root; the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = str(paths["chromium"])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(str(paths["chromedriver"])))
    try:
        yield driver
    finally:
        driver.quit()


def look(browser: Any, page: Path, width: int, scheme: str) -> dict[str, Any]:
    """What the browser shows of a page, what it asked for, and what it complained about."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    seen: dict[str, Any] = browser.execute_script(SEEN)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    seen["asked"] = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    seen["said"] = [entry["message"] for entry in browser.get_log("browser")]
    return seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 820, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_and_needs_nothing(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    seen = look(browser, pages[name], width, scheme)
    assert seen["inner"] == width
    assert seen["width"] <= width
    assert [url for url in seen["asked"] if not url.startswith("data:")] == [pages[name].as_uri()]
    assert seen["said"] == []
    assert seen["run"]
    assert len(seen["charts"]) >= 3
    for drawn in seen["charts"]:
        ((left, right, wide, high),) = drawn
        assert 0 <= left < right <= width
        assert min(wide, high) > 60
    assert seen["smallest"] > 9.5  # pixels of a letter; drawn at 12, and a little smaller on the smallest phones


@pytest.mark.parametrize("width", [375, 1280])
def test_memory_over_a_generation_is_drawn_for_each_strategy(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    look(browser, pages["followed"], width, "light")
    seen = browser.execute_script("""
        return [...document.querySelectorAll("#over-time figure")].map(figure => {
            const box = figure.querySelector("svg").getBoundingClientRect();
            const dashed = [...figure.querySelectorAll("line[stroke-dasharray]")].map(each => each.getBoundingClientRect());
            return {
                name: figure.querySelector("h3").textContent,
                lines: figure.querySelectorAll("path[stroke-width='1.5']").length,
                budget: dashed.filter(line => line.width > 100 && line.top > box.top && line.top < box.bottom).length,
            };
        });
    """)
    assert [each["name"] for each in seen] == list(STRATEGIES)
    assert all((each["lines"], each["budget"]) == (2, 1) for each in seen)
    caption = browser.execute_script('return document.querySelector("#over-time .caption").textContent')
    assert "dashed: the budget" in caption


def test_light_and_dark_differ_in_the_page_and_its_drawings(browser: Any, pages: dict[str, Path]) -> None:
    light, dark = (look(browser, pages["h200"], 1280, scheme) for scheme in ("light", "dark"))
    assert (light["background"], dark["background"]) == ("rgb(252, 252, 251)", "rgb(20, 23, 26)")
    assert light["mark"] != dark["mark"]


def test_a_page_that_overflows_is_seen(browser: Any, tmp_path: Path, pages: dict[str, Path]) -> None:
    text = pages["cpu"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(
        text.replace("<main>", f'<main><p><script src="gone.js"></script>{"x" * 999}</p>').replace(
            "overflow-wrap:anywhere", ""
        ),
        encoding="utf-8",
    )
    seen = look(browser, broken, 375, "light")
    assert any(
        "Content Security Policy" in line for line in seen["said"]
    )  # neither the style nor the script is its own
    assert not seen["run"]
    assert seen["width"] > 375
