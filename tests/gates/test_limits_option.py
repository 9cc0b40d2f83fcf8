"""``--loraperf-limits``: how far strategies are from the hardware's limit, by option, ini and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.cli import main
from pytest_loraperf.errors import LoraperfError

CPU = ("--loraperf-device=cpu", "--loraperf-max-seconds=1s", "--loraperf-rounds=3")
TEST = """
    import pytest

    @pytest.mark.lora_strategy("fused", "low_vram")
    @pytest.mark.latency_budget(ratio=1000, of="standard_lora")
    def test_it(lora_pipeline):
        lora_pipeline(height=64, width=64, steps=3)
"""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strategies of which a generation was counted."""
    names: list[str] = []
    count = Bench.count

    def noted(bench: Bench, name: str, *more: Any) -> Any:
        names.append(name)
        return count(bench, name, *more)

    monkeypatch.setattr(Bench, "count", noted)
    return names


def data_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("way", ["option", "ini"])
def test_it_is_in_the_table_and_in_the_json(
    pytester: pytest.Pytester, way: str, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    pytester.makepyfile(TEST)
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_limits = true")
    given = ["--loraperf-limits"] if way == "option" else []
    result = pytester.runpytest(*CPU, "--loraperf-json=out.json", *given)
    result.assert_outcomes(passed=2)
    result.stdout.re_match_lines_random(
        [
            r"strategy .* of the limit .*verdict",
            r"standard_lora .* [0-9.]+% ",
            r"fused .* [0-9.]+% ",
            r"low_vram .* [0-9.]+% ",
            r"of the limit: the least time by this machine's rates, over the median \(",
            r"rates: [0-9.]+ [GT]FLOP/s in bfloat16, [0-9.]+ GB/s of device memory",
        ]
    )
    data = data_of(pytester.path / "out.json")
    rates, strategies = data["machine"]["rates"], data["strategies"]
    assert set(rates) == {"operations", "bytes", "bus_bytes"}
    for name in ("standard_lora", "fused", "low_vram"):
        limit = strategies[name]["limit"]
        least = limit["operations"]["bfloat16"] / rates["operations"]["bfloat16"]
        assert limit["seconds"] == pytest.approx(max(least, limit["bytes"] / rates["bytes"]))
        assert 0 < limit["seconds"] < strategies[name]["latency"]["median_s"]
        assert (limit["bus_bytes"], limit["not_counted"]) == (0, [])
    fused, attached = (strategies[name]["limit"] for name in ("fused", "standard_lora"))
    assert attached["operations"]["bfloat16"] > fused["operations"]["bfloat16"]
    assert attached["bytes"] > fused["bytes"]
    assert sorted(counted) == ["fused", "low_vram", "standard_lora"]


def test_it_is_off_unless_asked_for(pytester: pytest.Pytester, counted: list[str]) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest(*CPU, "--loraperf-json=out.json")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*of the limit*")
    data = data_of(pytester.path / "out.json")
    assert data["machine"]["rates"] is None
    assert data["strategies"]["fused"]["limit"] is None
    assert counted == []


def test_what_is_not_timed_is_not_counted(pytester: pytest.Pytester, counted: list[str]) -> None:
    pytester.makepyfile("def test_it(fused_pipeline): fused_pipeline(height=64, width=64)")
    pytester.runpytest(*CPU, "--loraperf-limits", "--loraperf-json=out.json").assert_outcomes(passed=1)
    assert data_of(pytester.path / "out.json")["strategies"]["fused"]["limit"] is None
    assert counted == []


def test_a_test_of_two_requests_has_their_mean(pytester: pytest.Pytester) -> None:
    module = pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1h")
        @pytest.mark.parametrize("steps", [[2], [4], [2, 4]], ids=str)
        def test_it(fused_pipeline, steps):
            for each in steps:
                fused_pipeline(height=64, width=64, steps=each)
    """)
    found = []
    for steps in ("[2]", "[4]", "[2, 4]"):
        test = f"{module.name}::test_it[{steps}]"
        result = pytester.runpytest(*CPU, "--loraperf-limits", "--loraperf-json=out.json", test)
        result.assert_outcomes(passed=1)
        found.append(data_of(pytester.path / "out.json")["strategies"]["fused"]["limit"]["bytes"])
    assert found[2] == (found[0] + found[1]) // 2


@pytest.mark.parametrize("raised", ["ours", "another"])
def test_what_cannot_be_counted_is_a_note(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, raised: str
) -> None:
    def gone(*_: object) -> None:
        raise LoraperfError("it is gone") if raised == "ours" else KeyError("gone")

    monkeypatch.setattr(Bench, "count", gone)
    pytester.makepyfile(TEST)
    result = pytester.runpytest(*CPU, "--loraperf-limits", "--loraperf-json=out.json")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*of the limit*")
    said = "it is gone" if raised == "ours" else "KeyError: 'gone'"
    notes = data_of(pytester.path / "out.json")["notes"]
    assert notes.count(f"fused: its limit is not known: {said}") == 1
    result.stdout.fnmatch_lines([f"fused: its limit is not known: {said}"])


def test_a_clock_that_stands_still_is_a_note(clocked: pytest.Pytester) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.latency_budget("1h")
        def test_it(fused_pipeline, clock, monkeypatch):
            import pytest_loraperf.bench.bench as bench
            run = bench.Bench.run
            monkeypatch.setattr(bench.Bench, "run", lambda *given, **more: (clock.spend(1.0), run(*given, **more))[1])
            fused_pipeline(height=64, width=64)
    """)
    result = clocked.runpytest("--loraperf-device=cpu", "--loraperf-limits", "--loraperf-json=out.json")
    result.assert_outcomes(passed=1)
    assert (
        "fused: its limit is not known: a matrix product or a copy took no time by the clock, which is too coarse or "
        "stands still; mend the clock, or leave out --loraperf-limits"
    ) in data_of(clocked.path / "out.json")["notes"]


def test_the_page_has_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    pytester.runpytest(*CPU, "--loraperf-limits", "--loraperf-html=out.html").assert_outcomes(passed=2)
    assert ">of the limit<" in (pytester.path / "out.html").read_text()


def test_bench_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "bench.json"
    tiny = ("bench", "--model=synthetic:tiny", "--device=cpu", "--rounds=3", "--strategies=fused")
    assert main([*tiny, "--batch=2", "--limits", f"--json={out}"]) == 0
    assert "  of the limit  " in capsys.readouterr().out
    data = data_of(out)
    assert all(data["strategies"][name]["limit"]["seconds"] > 0 for name in ("fused", "standard_lora"))
    assert data["machine"]["rates"]["operations"]["bfloat16"] > 0
