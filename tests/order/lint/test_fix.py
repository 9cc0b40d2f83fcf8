"""``--fix``: what is moved, what is left alone, and that fixing again changes nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pytest_loraperf.order.lint.findings import selected
from pytest_loraperf.order.lint.fix import fix_file, fix_source
from pytest_loraperf.order.lint.run import lint_source
from pytest_loraperf.order.rules import RULES
from pytest_loraperf.order.rules.base import Rule

CODES = selected()
FP8 = "pipe.enable_vram_management(enable_dit_fp8_computation=True)"
LORA = "pipe.load_lora(pipe.dit, lora_path)"


def fixed(source: str) -> str:
    return fix_source(source, "app.py", CODES)


def test_the_seeds_slow_order_becomes_its_fast_one() -> None:
    assert fixed(f"{FP8}\n{LORA}  # Slow!\n") == f"{LORA}  # Slow!\n{FP8}\n"


def test_a_call_over_several_lines_moves_whole_and_comments_between_stay() -> None:
    source = f"def build():\n    {FP8}\n    # the LoRA\n    pipe.load_lora(\n        pipe.dit,\n        lora,\n    )\n    return pipe\n"
    assert fixed(source) == (
        f"def build():\n    # the LoRA\n    pipe.load_lora(\n        pipe.dit,\n        lora,\n    )\n    {FP8}\n    return pipe\n"
    )


def test_quantizing_moves_below_both_loading_and_fusing() -> None:
    quantize = "quantize_(pipe.transformer, config)"
    load, fuse = "pipe.load_lora_weights('a')", "pipe.fuse_lora()"
    assert fixed(f"{quantize}\n{load}\n{fuse}\n") == f"{load}\n{fuse}\n{quantize}\n"


def test_hotswap_moves_up() -> None:
    load, hotswap = "pipe.load_lora_weights('a')", "pipe.enable_lora_hotswap(target_rank=64)"
    assert fixed(f"{load}\n{hotswap}\n") == f"{hotswap}\n{load}\n"


@pytest.mark.parametrize(
    "source",
    [
        f"{FP8}\nprint(pipe)\nimage = pipe('a')\n{LORA}\n",
        f"{FP8}\nif lora_path:\n    {LORA}\n",
        f"{FP8}; {LORA}\n",
        "pipe.transformer = torch.compile(pipe.transformer)\npipe.load_lora_weights('a')\n",
        "quantize_(pipe.transformer, config)\npipe.load_lora_weights(path := find())\n",
        "model = get_peft_model(model, LoraConfig())\nquantize_(model, Int8WeightOnlyConfig())\n",
    ],
)
def test_what_is_not_safe_is_left_alone(source: str) -> None:
    assert lint_source(source, "app.py")
    assert fixed(source) == source


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.static], ids=lambda rule: rule.code)
def test_fixing_again_changes_nothing_and_adds_no_finding(rule: Rule) -> None:
    for sample in (*rule.valid, *rule.invalid):
        once = fixed(sample)
        ast.parse(once)
        assert fixed(once) == once
        assert sorted(once.splitlines()) == sorted(sample.splitlines())
        assert len(lint_source(once, "app.py")) <= len(lint_source(sample, "app.py"))


def test_a_file_keeps_its_encoding_and_its_line_endings(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    content = f"# coding: latin-1\r\n# é\r\n{FP8}\r\n{LORA}\r\n".encode("latin-1")
    file.write_bytes(content)
    assert fix_file(file, CODES) == 1
    assert file.read_bytes() == f"# coding: latin-1\r\n# é\r\n{LORA}\r\n{FP8}\r\n".encode("latin-1")
    assert fix_file(file, CODES) == 0


def test_an_unreadable_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_bytes(b"# coding: klingon\n")
    assert fix_file(file, CODES) == 0
