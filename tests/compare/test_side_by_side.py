"""``loraperf report --claims``: several libraries' results in one table, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_results import EIGHT, MACHINE, STRATEGIES, with_strategy

from pytest_loraperf.cli import main
from pytest_loraperf.compare.side_by_side import side_by_side
from pytest_loraperf.limits import Limit
from pytest_loraperf.report.claims import CLAIMS
from pytest_loraperf.report.results import Results, StrategyResult, write_results

THEIRS = replace(
    EIGHT,
    command="loraperf bench --backend diffusers",
    machine=replace(MACHINE, backend="diffusers 0.42.1"),
    strategies={
        "standard_lora": STRATEGIES["standard_lora"],
        "fused": replace(STRATEGIES["fused"], samples_s=(0.2, 0.2, 0.2)),
        "my own": StrategyResult(error="no fp8\nhere"),
    },
)


def files(folder: Path, *found: Results) -> list[str]:
    paths = [folder / f"{number}.json" for number, _ in enumerate(found, 1)]
    for path, each in zip(paths, found, strict=True):
        write_results(path, each)
    return list(map(str, paths))


def shown(libraries: Mapping[str, Results]) -> list[str]:
    return list(side_by_side({library: [results] for library, results in libraries.items()}))


def test_each_strategy_has_a_cell_of_each_library() -> None:
    lines = shown({"diffsynth 2.1.12": EIGHT, "diffusers 0.42.1": THEIRS})
    assert lines[:5] == [
        "| strategy | reported | diffsynth 2.1.12 | diffusers 0.42.1 |",
        "| --- | --- | --- | --- |",
        "| `standard_lora` | 12.5 s, –, 24 GB | 1.128 s, –, 40.3 GB | 1.128 s, –, 40.3 GB |",
        "| `quantize_then_lora` | 15.2 s, 1.22×, 14 GB | 1.861 s, 1.65×, 21.2 GB | – |",
        "| `lora_then_quantize` | 11.8 s, 0.94×, 14 GB | 1.870 s, 1.66×, 21.2 GB | – |",
    ]
    assert "| `quantize_then_fuse` | – | 1.600 s, 1.42×, 20 GB | – |" in lines
    assert "| `my own` | – | – | error |" in lines


def test_the_share_of_the_limit_is_shown_where_it_was_measured() -> None:
    limit = Limit(operations={"bfloat16": 1}, bytes=2, bus_bytes=3, seconds=0.4335, by="operations")
    lines = shown({"diffsynth": with_strategy("fused", limit=limit)})
    assert any(line.startswith("| `fused` |") and line.endswith(", 50% of the limit |") for line in lines)
    assert not any(line.startswith("| `standard_lora` |") and "of the limit" in line for line in lines)
    assert (
        "- of the limit: the least time by the machine's rates, over the median; 100 % cannot be beaten" in lines
    )
    assert not any("of the limit" in line for line in shown({"diffsynth": EIGHT}))


def test_each_claim_has_an_outcome_in_each_library() -> None:
    lines = shown({"diffsynth 2.1.12": EIGHT, "diffusers 0.42.1": THEIRS})
    start = lines.index("| reported | diffsynth 2.1.12 | diffusers 0.42.1 |")
    assert lines[start + 1] == "| --- | --- | --- |"
    claims = [line.split(" | ") for line in lines[start + 2 : lines.index("", start)]]
    assert [claim[0].lstrip("| ").replace("\\", "") for claim in claims] == list(map(str, CLAIMS))
    said = {claim[0].lstrip("| ").replace("\\", ""): claim[1:] for claim in claims}
    assert said["fused is faster than standard_lora by 20%"] == [
        "cannot tell: 0.77×\\~, 0.25–2.34",
        "holds: 0.18×\\~, 0.06–0.54 |",
    ]
    assert said["low_vram runs in 8 GB"] == ["holds: 6.9 GB", "– |"]
    assert said["lora_then_quantize is smaller than standard_lora by 40%"] == [
        "holds: 0.53×, 21.2 GB of 40.3 GB",
        "– |",
    ]
    assert said["lora_then_quantize is faster than standard_lora by 10%"][0].startswith("cannot tell: 1.66×\\~, ")


def test_a_claim_that_does_not_hold_says_so() -> None:
    slow = with_strategy("fused", samples_s=(5.0, 5.0, 5.0))
    assert any("| does not hold: 4.43×\\~, 1.46–13.43 |" in line for line in shown({"diffsynth": slow}))


def test_the_notes_say_what_to_know_of_it() -> None:
    assert [
        line for line in shown({"diffsynth 2.1.12": EIGHT, "diffusers 0.42.1": THEIRS}) if line[:1] == "-"
    ] == [
        "- synthetic:full on H100, driver 580.1, torch 2.11.0",
        "- of a strategy: time of a generation, its ratio to standard\\_lora, VRAM at run time",
        "- reported: by users, on a card that is not named; of 20 to 30 %, say, the lower end is held",
        "- each library was measured in a run of its own, which its ratios are within",
        "- \\~ not measured in the same rounds",
        "- loading: the step that attaches the LoRA, without what a quantize step before it has wrapped",
        "- – not measured",
        "- diffsynth 2.1.12 quantizes by torchao\\_fp8\\_w8a8 in quantize\\_then\\_lora, lora\\_then\\_quantize, "
        "fused\\_then\\_quantize",
        "- diffsynth 2.1.12 quantizes by fp8\\_storage in low\\_vram, low\\_vram\\_optimized, quantize\\_then\\_fuse",
        "- error in my own with diffusers 0.42.1: no fp8 here",
        "- `loraperf bench`",
        "- `loraperf bench --backend diffusers`",
    ]


def test_on_cpus_it_says_what_cannot_be_known() -> None:
    cpu = replace(
        EIGHT, machine=replace(MACHINE, device="cpu", name="CPU", driver=None, memory_kind="tensor bytes")
    )
    notes = [line for line in shown({"a": cpu, "b": cpu}) if line[:1] == "-"]
    assert "- VRAM here: tensor bytes (no CUDA), so no claim about VRAM is judged" in notes
    assert "- both ran on a CPU, and results do not say on which: see to it that it was the same machine" in notes
    assert not any("both ran on a CPU" in line for line in shown({"a": cpu}))
    assert any(
        "both ran on a CPU" in line for line in side_by_side({"a": [of(cpu, "fused"), of(cpu, "low_vram")]})
    )


def test_the_command_shows_it_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, EIGHT, THEIRS)
    assert main(["report", *given, "--claims"]) == 0
    lines = capsys.readouterr().out
    assert lines.splitlines() == shown({"diffsynth 2.1.12": EIGHT, "diffusers 0.42.1": THEIRS})
    out = tmp_path / "deep" / "claims.md"
    assert main(["report", *given, "--claims", f"--markdown={out}"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.read_text(encoding="utf-8") == lines


def test_a_file_without_its_library_is_called_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = files(tmp_path, replace(EIGHT, machine=replace(MACHINE, backend="")))
    assert main(["report", *given, "--claims"]) == 0
    assert capsys.readouterr().out.startswith("| strategy | reported | 1 |\n")


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"model": "synthetic:tiny"}, "model (synthetic:full against synthetic:tiny)"),
        ({"machine": replace(THEIRS.machine, name="A100")}, "device (H100 against A100)"),
        ({"machine": replace(THEIRS.machine, torch="2.12.0")}, "torch (2.11.0 against 2.12.0)"),
        ({"request": {**EIGHT.request, "height": 64}}, "request height (1024 against 64)"),
        (
            {"strategies": {"fused": replace(STRATEGIES["fused"], adapters=("b.safetensors:1",))}},
            "adapters of fused (('a.safetensors:1',) against ('b.safetensors:1',))",
        ),
    ],
)
def test_what_was_not_measured_alike_is_refused(
    change: dict[str, Any], differences: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = with_strategy("fused", adapters=("a.safetensors:1",))
    first, second = files(tmp_path, ours, replace(THEIRS, **change))
    assert main(["report", first, second, "--claims"]) == 2
    assert capsys.readouterr().err == (
        f"loraperf: --claims: {first} and {second} differ in {differences}: "
        "what they say would not be that of their libraries alone; measure both alike\n"
    )


def test_steps_and_schemes_are_what_libraries_may_differ_in(tmp_path: Path) -> None:
    changed = replace(STRATEGIES["fused"], steps=("fuse", "compile"), scheme="fp8_compute")
    given = files(tmp_path, EIGHT, replace(THEIRS, strategies={"fused": changed}))
    assert main(["report", *given, "--claims"]) == 0


def of(results: Results, *names: str, command: str = "") -> Results:
    """Return the results with these strategies alone, and the reference."""
    kept = {name: results.strategies[name] for name in ("standard_lora", *names)}
    return replace(results, strategies=kept, command=command)


def test_a_library_may_be_measured_in_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [name for name in STRATEGIES if name not in {"standard_lora", "low_vram"}]
    given = files(tmp_path, of(EIGHT, *others, command="first"), of(EIGHT, "low_vram", command="second"))
    assert main(["report", *given, "--claims"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| strategy | reported | diffsynth 2.1.12 |"
    assert "| `low_vram` | 18.5 s, 1.48×, 8 GB | 50.60 s, 44.86×, 6.9 GB |" in lines
    (slower,) = [line for line in lines if line.startswith("| low\\_vram is slower than all others |")]
    assert slower.split(" | ")[1].startswith("holds: 0.04×\\~, ")
    assert (
        "- diffsynth 2.1.12 was measured in 2 runs: a ratio is within one of them, or not in the same rounds"
        in lines
    )
    assert lines[-2:] == ["- `first`", "- `second`"]


def test_what_failed_in_one_run_may_be_measured_in_another(tmp_path: Path) -> None:
    failed = replace(EIGHT, strategies={**EIGHT.strategies, "low_vram": StrategyResult(error="out of memory")})
    given = files(tmp_path, of(failed, "fused", "low_vram"), of(EIGHT, "low_vram"))
    assert main(["report", *given, "--claims"]) == 0


def test_a_strategy_of_one_library_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = files(tmp_path, of(EIGHT, "fused", "low_vram"), of(EIGHT, "low_vram"))
    assert main(["report", first, second, "--claims"]) == 2
    assert capsys.readouterr().err == (
        f"loraperf: --claims: {first} and {second} both have low_vram of diffsynth 2.1.12; give each strategy of a "
        "library once, or see what changed from one to the other with loraperf compare\n"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--html=a.html"], "--html"),
        (["--png=a.png", "--gpu-budget=24GB"], "--png, --gpu-budget"),
        (["--max-slowdown=5%"], "--max-slowdown"),
    ],
)
def test_options_that_it_does_not_use_are_refused(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *files(tmp_path, EIGHT), "--claims", *options]) == 2
    assert capsys.readouterr().err == (
        f"loraperf: --claims is a table in Markdown, without {named}; leave that out\n"
    )


def test_two_libraries_measured_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = []
    for backend in ("diffsynth", "diffusers"):
        pytest.importorskip(backend)
        given.append(str(tmp_path / f"{backend}.json"))
        words = ["--model=synthetic:tiny", "--device=cpu", "--strategies=standard_lora,fused", "--rounds=9"]
        assert main(["bench", f"--backend={backend}", f"--json={given[-1]}", *words]) == 0
    capsys.readouterr()
    assert main(["report", *given, "--claims"]) == 0
    titles, _, *rows = capsys.readouterr().out.splitlines()
    assert [title.split()[0] for title in titles.strip("| ").split(" | ")] == [
        "strategy",
        "reported",
        "diffsynth",
        "diffusers",
    ]
    for row in rows[:2]:
        cells = row.strip("| ").split(" | ")
        assert all(" s, " in cell and cell.endswith(" MB") for cell in cells[2:]), row
    (fused,) = [row for row in rows if row.startswith("| fused is faster than standard\\_lora by 20% |")]
    # Both were in the same nine rounds, so nothing is marked as taken apart, and no library is left out.
    assert "~" not in fused
    assert fused.count("×, ") == 2
