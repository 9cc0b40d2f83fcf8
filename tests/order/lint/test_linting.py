"""Files and folders, unreadable ones, suppressed findings, selected codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.order.lint.findings import Finding, selected
from pytest_loraperf.order.lint.run import lint_paths, lint_source
from pytest_loraperf.order.lint.source import python_files, read
from pytest_loraperf.order.rules import DEFAULT, UNREADABLE

SLOW = """\
pipe.enable_vram_management(enable_dit_fp8_computation=True)
pipe.load_lora(pipe.dit, lora_path)
"""
BOTH = """\
quantize_(pipe.transformer, Int8WeightOnlyConfig())
pipe.load_lora_weights("a")
pipe.fuse_lora()
"""


def codes(source: str) -> list[str]:
    return [each.code for each in lint_source(source, "app.py")]


def test_message_says_what_was_found_and_the_corrected_order() -> None:
    (found,) = lint_source(SLOW, "app.py")
    assert (found.path, found.line, found.col, found.name) == ("app.py", 2, 0, "attach-after-quantize")
    assert found.message == (
        "pipe.load_lora attaches a LoRA to a model that pipe.enable_vram_management quantized (app.py:1): right, but slow; "
        "load or fuse the LoRA first, then quantize"
    )


def test_a_finding_in_a_helper_stands_there_and_names_the_call() -> None:
    (found,) = lint_source(
        "def add(pipe):\n    pipe.load_lora_weights('a')\n\n\nquantize_(pipe.transformer, config)\nadd(pipe)\n",
        "app.py",
    )
    assert (found.line, found.col) == (2, 4)
    assert found.message.endswith("; load or fuse the LoRA first, then quantize (called at line 6)")


def test_a_chain_of_calls_is_named_in_short() -> None:
    (found,) = lint_source(
        "QuantizeConfig(method='nf4').quantize_model(pipe.dit)\npipe.load_lora(pipe.dit, 'a', hotload=False)\n",
        "a.py",
    )
    assert "that QuantizeConfig(…).quantize_model quantized (a.py:1): it fades; " in found.message


def test_folders_are_walked_and_hidden_and_installed_ones_left_out(tmp_path: Path) -> None:
    for name in ("app.py", "package/module.py", ".venv/lib.py", "venv/lib.py", "notes.txt", "__pycache__/app.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(SLOW)
    found = lint_paths([tmp_path, tmp_path / "app.py"])
    assert [each.path for each in found] == [str(tmp_path / "app.py"), str(tmp_path / "package" / "module.py")]


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LoraperfError) as error:
        lint_paths([tmp_path / "gone.py"])
    assert str(error.value) == f"{tmp_path / 'gone.py'} is not there: name files or folders to lint"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"def broken(:\n", 1, "invalid syntax"),
        (b"\n\nx = (\n", 3, "'(' was never closed"),
        (b"# coding: klingon\n", 1, "unknown encoding: klingon"),
        (b"text = '\xff'\n", 1, "invalid or missing encoding declaration"),
        (b"pipe.load_lora_weights(\n", 1, "'(' was never closed"),
        (b"x = 1\x00\n", 1, "source code string cannot contain null bytes"),
    ],
)
def test_an_unreadable_file_is_a_finding(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    file = tmp_path / "app.py"
    file.write_bytes(content)
    (found,) = lint_paths([file])
    assert (found.code, found.name, found.line) == (UNREADABLE, "unreadable", line)
    assert found.message == f"this file cannot be linted: {reason}"
    assert lint_paths([file], ignore=["LRP001"]) == []


NOT_TO_ITS_END = "this file cannot be linted: not to its end, for it has"
REST = "here; of what was not reached nothing is known; split it"


def nested(deep: int) -> str:
    """Return a program of two mistakes, the second of them below so many branches inside of loops."""
    lines = [
        "def build(pipe, many):",
        "    enable_vram_management(pipe.dit, vram_config={'onload_dtype': torch.float8_e4m3fn})",
    ]
    lines += ["    pipe.load_lora(pipe.dit, 'a.safetensors')"]
    for level in range(deep):
        indent = "    " * (1 + 2 * level)
        lines += [f"{indent}for each{level} in many:", f"{indent}    if many[{level}]:"]
    lines += ["    " * (1 + 2 * deep) + "pipe.dit = many"]
    return "\n".join([*lines, "    GeneralLoRALoader().fuse_lora_to_base_model(pipe.dit, many)", ""])


def test_a_file_that_is_not_followed_to_its_end_is_a_finding() -> None:
    whole = lint_source(nested(3), "app.py")
    assert UNREADABLE not in {each.code for each in whole}
    cut = lint_source(nested(12), "app.py")
    (told,) = [each for each in cut if each.code == UNREADABLE]
    assert told.message == f"{NOT_TO_ITS_END} too many branches {REST}"
    assert 4 <= told.line <= 28
    assert [each for each in cut if each != told] == [each for each in whole if each.line <= 3]
    assert lint_source(nested(12), "app.py", selected(ignore=["LRP001"])) == cut[:-1]


def test_branches_below_a_call_are_where_it_is_left() -> None:
    helper = nested(12).replace("def build(pipe, many)", "def helper(pipe, many)")
    calls = "helper(pipe, many)\nquantize_(pipe.dit, c)\npipe.load_lora(pipe.dit, 'a')\n"
    (told,) = [each for each in lint_source(helper + calls, "app.py") if each.code == UNREADABLE]
    assert 4 <= told.line <= 28


def test_a_file_that_is_nested_too_deeply_is_a_finding() -> None:
    deep = f"quantize_(pipe.dit, c)\npipe.load_lora(pipe.dit, f{'.g()' * 900})\n"
    (told,) = lint_source(deep, "app.py")
    assert (told.line, told.message) == (2, f"{NOT_TO_ITS_END} too deep a nesting {REST}")


def test_a_file_that_may_not_be_opened_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "app.py").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    (found,) = lint_paths([tmp_path])
    assert (found.code, found.message) == (UNREADABLE, "this file cannot be linted: Permission denied")


def test_nesting_without_end_is_a_finding_or_nothing_but_no_crash() -> None:
    for source in (
        f"{'(' * 5000}x{')' * 5000}",
        f"pipe.load_lora_weights({'-' * 50_000}1)",
        f"x = {'a.' * 20_000}b",
    ):
        assert set(codes(source)) <= {UNREADABLE}


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        ("", ["LRP102", "LRP101"]),
        ("# noqa: LRP102", ["LRP101"]),
        ("# noqa: LRP102 - adapters are exchanged", ["LRP101"]),
        ("# noqa:LRP102,E501", ["LRP101"]),
        ("# NOQA: lrp1", ["LRP101"]),
        ("# noqa", ["LRP101"]),
        ("# noqa: E501", ["LRP102", "LRP101"]),
        ("# noqa: LRP101", ["LRP102", "LRP101"]),
    ],
)
def test_noqa_suppresses_what_it_names_on_its_line(comment: str, kept: list[str]) -> None:
    lines = BOTH.splitlines()
    lines[1] = f"{lines[1]}  {comment}"
    assert codes("\n".join(lines)) == kept


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("@pytest.mark.allow_order('LRP102', reason='r')\ndef test_a(pipe):\n    {}", []),
        ("@pytest.mark.allow_order('LRP101', reason='r')\ndef test_a(pipe):\n    {}", ["LRP102"]),
        ("@pytest.mark.allow_order('LRP102', reason='r')\nclass TestA:\n    def test_a(self, pipe):\n        {}", []),
        ("pytestmark = [pytest.mark.allow_order('LRP102', reason='r')]\ndef test_a(pipe):\n    {}", []),
        ("class TestA:\n    pytestmark = pytest.mark.allow_order('LRP102', reason='r')\n"
         "    def test_a(self, pipe):\n        {}", []),
        ("@pytest.mark.allow_order('LRP102', reason='r')\ndef test_b(pipe): pass\ndef test_a(pipe):\n    {}",
         ["LRP102"]),
    ],
)  # fmt: skip
def test_a_marker_allows_an_order_on_its_test_class_or_module(source: str, kept: list[str]) -> None:
    assert codes(source.format("quantize_(pipe.transformer, c); pipe.load_lora_weights('a')\n")) == kept


def test_noqa_may_stand_on_any_line_of_the_call_but_not_in_a_string() -> None:
    assert codes("quantize_(pipe.transformer, c)\npipe.load_lora_weights(\n    'a',\n)  # noqa: LRP102\n") == []
    assert codes("quantize_(pipe.transformer, c)\npipe.load_lora_weights('# noqa: LRP102')\n") == ["LRP102"]


@pytest.mark.parametrize(
    ("select", "ignore", "chosen"),
    [
        ([], [], DEFAULT | {UNREADABLE}),
        (["LRP102"], [], {"LRP102", UNREADABLE}),
        (["LRP101-LRP103"], ["LRP102"], {"LRP101", "LRP103", UNREADABLE}),
        (["LRP101-103,LRP110"], [], {"LRP101", "LRP102", "LRP103", "LRP110", UNREADABLE}),
        (["lrp1"], [], DEFAULT | {"LRP110", UNREADABLE}),
        ([], ["LRP1"], {UNREADABLE}),
        ([], ["LRP001"], DEFAULT),
    ],
)
def test_codes_are_selected_and_ignored(select: list[str], ignore: list[str], chosen: set[str]) -> None:
    assert selected(select, ignore) == chosen


@pytest.mark.parametrize("word", ["LRP999", "E501", "LRP101-E501", "LRP109-LRP101"])
def test_an_unknown_code_is_said(word: str) -> None:
    with pytest.raises(LoraperfError) as error:
        selected([word])
    assert str(error.value) == f"--select: {word!r} is no code; use one such as LRP102, LRP101-LRP109 or LRP1"


def test_ignoring_an_unknown_code_is_said() -> None:
    with pytest.raises(LoraperfError, match="'X1' is no code"):
        selected([], ["X1"])


def test_a_link_to_nowhere_and_a_notebook(tmp_path: Path) -> None:
    (tmp_path / ".#edited.py").symlink_to("nobody@host.1:2")
    (tmp_path / "fine.py").write_text("x = 1\n")
    assert list(python_files([tmp_path])) == [tmp_path / "fine.py"]
    notebook = tmp_path / "n.ipynb"
    notebook.write_text('{"cells": []}')
    found = read(notebook)
    assert isinstance(found, Finding)
    assert found.code == "LRP001"
    assert "it is a notebook; lint what `jupyter nbconvert --to script` makes of it" in found.message


def test_what_only_a_run_finds_cannot_be_selected_alone() -> None:
    with pytest.raises(LoraperfError) as error:
        selected(select=["LRP104"])
    assert str(error.value) == (
        "--select: LRP104 is found at run time alone, never by the linter; select others too"
    )
    assert "LRP104" in selected(select=["LRP103, LRP104"])
