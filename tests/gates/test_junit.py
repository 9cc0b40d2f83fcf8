"""JUnit XML: the properties of a test say what was measured and what came of it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

CPU = "--loraperf-device=cpu"


def properties(path: Path) -> dict[str, dict[str, str]]:
    """The properties of each test, by its name."""
    root = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - pytest wrote it just now
    return {
        case.get("name", ""): {
            each.get("name", "").removeprefix("loraperf_"): each.get("value", "") for each in case.iter("property")
        }
        for case in root.iter("testcase")
    }


def test_what_was_measured_of_a_strategy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("1GB")
        @pytest.mark.latency_budget(ratio=100, of="standard_lora")
        def test_it(fused_pipeline):
            fused_pipeline()
    """)
    pytester.runpytest(CPU, "--junit-xml=out.xml", "--loraperf-rounds=3").assert_outcomes(passed=1)
    found = properties(pytester.path / "out.xml")["test_it"]
    assert found["strategy"] == "fused"
    assert found["verdicts"] == "vram=PASS lora-effect=PASS latency=PASS"
    assert found["latency"].startswith("PASS: fused took ")
    assert found["ratio_of"] == "standard_lora"
    low, high = map(float, found["ratio_interval"].split())
    assert low <= float(found["ratio"]) <= high < 100
    low, high = map(float, found["median_interval_s"].split())
    assert 0 < low <= float(found["median_s"]) <= high
    assert int(found["rounds"]) >= 3
    sizes = [int(found[f"vram_{phase}_bytes"]) for phase in ("setup", "resident", "runtime")]
    assert min(sizes) > 2**20


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_was_measured_of_callables(clocked: pytest.Pytester, workers: str) -> None:
    clocked.makepyfile("""
        import pytest

        @pytest.mark.faster_than("old", by="10%")
        @pytest.mark.latency_budget("500ms")
        def test_pair(gpu_workload, clock):
            gpu_workload(clock.spend, 1.0, name="new")
            gpu_workload(clock.spend, 2.0, name="old")

        @pytest.mark.latency_budget("2s")
        def test_raises(gpu_workload, clock):
            calls = []

            def work():
                calls.append(clock.spend(1.0))
                if len(calls) == 4:
                    raise RuntimeError("no more")

            gpu_workload(work)

        def test_plain():
            pass
    """)
    run = clocked.runpytest_subprocess if workers == "-n2" else clocked.runpytest
    run(CPU, "--junit-xml=out.xml", workers).assert_outcomes(passed=1, failed=2)
    found = properties(clocked.path / "out.xml")
    pair = found["test_pair"]
    assert pair.pop("faster-than").startswith("PASS: new ")
    assert pair == {
        "latency": "FAIL: new took 1.000 s (1.000 s–1.000 s, 9 rounds), 100% over the latency budget of 500.0 ms; "
        "make it faster or raise the budget",
        "median_s": "1",
        "median_interval_s": "1 1",
        "rounds": "9",
        "ratio_of": "old",
        "ratio": "0.5",
        "ratio_interval": "0.5 0.5",
        "verdicts": "latency=FAIL faster-than=PASS",
    }
    assert found["test_raises"]["verdicts"] == "error=FAIL"
    assert found["test_plain"] == {}
