"""The four formats, read back by what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_loraperf.order.lint.findings import Finding
from pytest_loraperf.order.lint.formats import FORMATS
from pytest_loraperf.order.lint.run import lint_paths

SOURCE = """\
def build(pipe):
    pipe.transformer.to(torch.float8_e4m3fn)
    pipe.load_lora_weights("a")
    pipe.fuse_lora()
"""
FADES = (
    "pipe.fuse_lora fuses a LoRA into weights that pipe.transformer.to quantized (app.py:2): it fades; "
    "fuse the LoRA into the full-precision weights first, then quantize"
)
SLOW = (
    "pipe.load_lora_weights attaches a LoRA to a model that pipe.transformer.to quantized (app.py:2): right, but slow; "
    "load or fuse the LoRA first, then quantize"
)


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text(SOURCE)
    return lint_paths(["app.py"])


def test_text_shows_the_line(findings: list[Finding]) -> None:
    assert list(FORMATS["text"](findings)) == [
        f"app.py:3:5: LRP102 [attach-after-quantize] {SLOW}",
        '     3 |     pipe.load_lora_weights("a")',
        "       |     ^",
        f"app.py:4:5: LRP101 [fuse-into-quantized] {FADES}",
        "     4 |     pipe.fuse_lora()",
        "       |     ^",
        "2 findings in 1 file",
    ]


def test_text_of_nothing_is_nothing() -> None:
    assert list(FORMATS["text"]([])) == []


def test_text_of_an_unreadable_file_has_no_line(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_bytes(b"# coding: klingon\n")
    assert list(FORMATS["text"](lint_paths([file]))) == [
        f"{file}:1:1: LRP001 [unreadable] this file cannot be linted: unknown encoding: klingon",
        "1 finding in 1 file",
    ]


def test_json(findings: list[Finding]) -> None:
    (text,) = FORMATS["json"](findings)
    assert json.loads(text) == [
        {
            "path": "app.py",
            "line": 3,
            "col": 4,
            "code": "LRP102",
            "name": "attach-after-quantize",
            "message": SLOW,
        },
        {"path": "app.py", "line": 4, "col": 4, "code": "LRP101", "name": "fuse-into-quantized", "message": FADES},
    ]
    assert list(FORMATS["json"]([])) == ["[]"]


def test_github(findings: list[Finding]) -> None:
    assert list(FORMATS["github"](findings)) == [
        f"::warning file=app.py,line=3,col=5,title=LRP102 attach-after-quantize::{SLOW}",
        f"::error file=app.py,line=4,col=5,title=LRP101 fuse-into-quantized::{FADES}",
    ]


def test_github_escapes_what_would_end_a_command() -> None:
    finding = Finding("a,b:c.py", 1, 0, "LRP101", "fuse-into-quantized", "100 %\nlost")
    (line,) = FORMATS["github"]([finding])
    assert line == "::error file=a%2Cb%3Ac.py,line=1,col=1,title=LRP101 fuse-into-quantized::100 %25%0Alost"


def test_sarif(findings: list[Finding]) -> None:
    (text,) = FORMATS["sarif"](findings)
    log = json.loads(text)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [
        "LRP001",
        *(f"LRP{n}" for n in range(101, 111)),
    ]
    assert all(rule["shortDescription"]["text"].endswith(".") for rule in run["tool"]["driver"]["rules"])
    assert [(each["ruleId"], each["level"]) for each in run["results"]] == [
        ("LRP102", "warning"),
        ("LRP101", "error"),
    ]
    assert run["results"][1]["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "app.py"},
        "region": {"startLine": 4, "startColumn": 5},
    }
