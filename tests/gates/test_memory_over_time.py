"""Memory over a generation: looked at where results are written to a file, on the command line and in the ini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError

CPU = "--loraperf-device=cpu"
TEST = """
    import pytest

    @pytest.mark.lora_strategy("fused", "low_vram")
    @pytest.mark.vram_budget("1GB")
    def test_it(lora_pipeline):
        lora_pipeline(height=64, width=64, steps=3)
"""


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strategies of all generations that are run."""
    ran: list[str] = []
    run = Bench.run

    def counted(bench: Bench, name: str, *more: Any) -> Any:
        ran.append(name)
        return run(bench, name, *more)

    monkeypatch.setattr(Bench, "run", counted)
    return ran


def memory_of(path: Path, strategy: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["strategies"][strategy]
    return found


@pytest.mark.parametrize("way", ["option", "ini"])
def test_it_is_in_the_json(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile(TEST)
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_json = out.json")
    pytester.runpytest(CPU, *(["--loraperf-json=out.json"] if way == "option" else [])).assert_outcomes(passed=2)
    for strategy in ("fused", "low_vram"):
        found = memory_of(pytester.path / "out.json", strategy)
        memory, peak = found["memory"], found["vram"]["runtime_peak"]
        assert 20 < len(memory["seconds"]) == len(memory["needed"]) == len(memory["live"]) <= 200
        assert memory["seconds"] == sorted(memory["seconds"])
        assert len(memory["steps_s"]) == 3 + 1
        assert memory["seconds"][0] <= memory["steps_s"][0] < memory["steps_s"][-1] <= memory["seconds"][-1]
        assert max(memory["needed"]) == pytest.approx(peak, rel=0.05)
        assert min(memory["needed"]) < 0.95 * peak


@pytest.mark.parametrize("way", ["option", "ini"])
def test_it_is_in_the_page(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile(TEST)
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_html = out.html")
    pytester.runpytest(CPU, *(["--loraperf-html=out.html"] if way == "option" else [])).assert_outcomes(passed=2)
    page = (pytester.path / "out.html").read_text()
    assert "Memory over a generation" in page
    assert page.count("over-time-0-title") == page.count("over-time-1-title") > 0


@pytest.mark.parametrize(("options", "each"), [([], 1), (["--loraperf-json=out.json"], 2)])
def test_it_costs_one_generation_and_none_where_nothing_is_written(
    pytester: pytest.Pytester, generations: list[str], options: list[str], each: int
) -> None:
    pytester.makepyfile(TEST)
    pytester.runpytest(CPU, *options).assert_outcomes(passed=2)
    assert (generations.count("fused"), generations.count("low_vram")) == (each, each)


def test_a_second_test_of_a_strategy_costs_none(pytester: pytest.Pytester, generations: list[str]) -> None:
    pytester.makepyfile("""
        def test_one(fused_pipeline): fused_pipeline(height=64, width=64)
        def test_two(fused_pipeline): fused_pipeline(height=64, width=64)
    """)
    pytester.runpytest(CPU, "--loraperf-json=out.json").assert_outcomes(passed=2)
    assert generations.count("fused") == 3


def test_what_cannot_be_looked_at_is_a_note(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise LoraperfError("it is gone")

    monkeypatch.setattr(Bench, "follow", gone)
    pytester.makepyfile(TEST)
    pytester.runpytest(CPU, "--loraperf-json=out.json").assert_outcomes(passed=2)
    assert memory_of(pytester.path / "out.json", "fused")["memory"] is None
    notes = json.loads((pytester.path / "out.json").read_text())["notes"]
    assert "fused: its memory over a generation is not known: it is gone" in notes
