"""The reference is what the code makes of it, and its JSON Schema holds what is written."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from docs.reference import PAGES, RENDER, stale, write
from pytest_loraperf.cli import main
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.options import OPTIONS
from pytest_loraperf.strategies import NO_LORA, SHIPPED

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((PAGES / "results.schema.json").read_text(encoding="utf-8"))
RESULTS = [
    file
    for file in sorted((ROOT / "benchmarks").rglob("*.json"))
    if isinstance(data := json.loads(file.read_text(encoding="utf-8")), dict) and "verdicts" in data
]
CHECK = [sys.executable, "-m", "docs.reference", "--check"]


def test_the_pages_are_up_to_date() -> None:
    done = subprocess.run(CHECK, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_stale_is_named_and_written(tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    write(folder)
    assert stale(folder) == []
    (folder / "options.md").write_text("changed")
    (folder / "hooks.md").unlink()
    (folder / "gone.md").write_text("of nothing")
    assert stale(folder) == ["gone.md", "hooks.md", "options.md"]
    write(folder)
    assert {file.name for file in folder.iterdir()} == set(RENDER)
    assert stale(folder) == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("options.md", [option.flag for option in OPTIONS]),
        ("options.md", [option.ini for option in OPTIONS]),
        ("markers.md", list(MARKERS)),
        ("fixtures.md", [f"{strategy.name}_pipeline" for strategy in (*SHIPPED, NO_LORA)]),
        (
            "fixtures.md",
            ["lora_pipeline", "lora_model", "lora_adapter", "lora_request", "gpu_workload", "lora_race"],
        ),
        ("hooks.md", ["pytest_loraperf_strategies"]),
        ("command.md", [f"loraperf {name}" for name in ("bench", "compare", "doctor", "lint", "report")]),
    ],
)
def test_each_name_is_on_its_page(page: str, names: list[str]) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_the_schema_holds_the_committed_results(file: Path) -> None:
    jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), SCHEMA)


def test_there_are_committed_results_of_every_kind_of_run() -> None:
    names = {f"{file.parent.name}/{file.name}" for file in RESULTS}
    assert names >= {"cpu/demo.json", "cpu/effect.json", "cpu/forecast.json", "h200/demo.json", "h100/budget.json"}


def as_written(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what this version writes: each field is there, and no other."""
    strict = copy.deepcopy(schema)
    for kind in (strict, *strict["$defs"].values()):
        kind["required"] = list(kind["properties"])
        kind["additionalProperties"] = False
    return strict


def test_the_schema_holds_a_run_of_now_to_the_field(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    asked = ["--model", "synthetic:tiny", "--device", "cpu", "--rounds", "3", "--strategies", "fused", "--json"]
    assert main(["bench", *asked, str(out)]) == 0
    data = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(data, as_written(SCHEMA))
    assert data["comparisons"]
    assert data["strategies"]["fused"]["setup"]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema",), 2, "1 was expected"),
        (("verdicts",), [{"nodeid": "a"}], "'code' is a required property"),
        (("strategies", "fused", "vram", "runtime_peak"), "2 MB", "is not valid under any of the given schemas"),
        (("strategies", "fused", "samples_s"), [None], "None is not of type 'number'"),
    ],
)
def test_the_schema_refuses_what_is_no_result(place: tuple[str, ...], value: object, said: str) -> None:
    data = json.loads((ROOT / "benchmarks/cpu/demo.json").read_text(encoding="utf-8"))
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError, match=said):
        jsonschema.validate(data, SCHEMA)
