"""The linter never crashes, and is quick where there is nothing to find."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_loraperf.order.lint.findings import EVERY
from pytest_loraperf.order.lint.flake8 import Flake8Plugin
from pytest_loraperf.order.lint.interpreter import Interpreter
from pytest_loraperf.order.lint.nodes import children
from pytest_loraperf.order.lint.run import lint_source

CASES = sorted((Path(__file__).parents[2] / "corpus" / "cases").glob("*.py.txt"))
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def mutated(source: str, chance: random.Random) -> str:
    """Change a source in one way: lines lost, doubled or exchanged, indents changed, characters replaced."""
    lines = source.splitlines(keepends=True)
    first, second = (chance.randrange(len(lines)) for _ in range(2))
    kind = chance.randrange(6)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(first, lines[second])
    elif kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == 3:
        lines[first] = "    " + lines[first]
    elif kind == 4:
        lines[first] = lines[first].lstrip(" ")
    else:
        place = chance.randrange(len(source))
        return source[:place] + chance.choice("()[]{}:=.,'\"\\\n\t\0é*@#") + source[place + 1 :]
    return "".join(lines)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_cases(seed: int) -> None:
    chance = random.Random(seed)
    for case in CASES:
        source = case.read_text(encoding="utf-8")
        for _ in range(chance.randrange(1, 4)):
            source = mutated(source, chance)
            lint_source(source, "mutated.py")


def test_cases_in_one_file_in_any_order() -> None:
    chance = random.Random(0)
    sources = [case.read_text(encoding="utf-8") for case in CASES if case.stem != "unreadable.py"]
    for _ in range(10):
        lint_source("\n".join(chance.sample(sources, 12)), "all.py")


def test_a_part_of_the_standard_library() -> None:
    files = sorted(STANDARD_LIBRARY.glob("*.py"))
    for file in random.Random(0).sample(files, 40):
        source = file.read_text(encoding="utf-8")
        assert lint_source(source, str(file)) == []
        lint_source(source + "\npipe.load_lora_weights('a')\n", str(file))


def test_many_branches_end() -> None:
    branches = "".join(f"if f{i}():\n    quantize_(pipe{i}.transformer, c)\n" for i in range(60))
    started = time.monotonic()
    found = lint_source(f"{branches}pipe59.load_lora_weights('a')\n", "branches.py")
    assert [each.code for each in found] == ["LRP102"]
    assert time.monotonic() - started < 20


def steps(source: str) -> int:
    """Return how many statements and calls are interpreted, which takes the time, on any machine."""
    interpreter = Interpreter(ast.parse(source), "steps.py", EVERY)
    interpreter.run()
    return interpreter.steps


def test_most_statements_are_interpreted_once() -> None:
    sources = [case.read_text(encoding="utf-8") for case in CASES if case.stem != "unreadable.py"]
    lines = sum(source.count("\n") for source in sources)
    assert sum(map(steps, sources)) <= 1.4 * lines, "1.23 when this was written"


@pytest.mark.parametrize("arm", ["pipe.load_lora_weights(a)", "size = f()", "config = ModelConfig(a)", "break"])
def test_the_steps_grow_as_the_source_does(arm: str) -> None:
    def training(branches: int) -> str:
        arms = "".join(f"        if f{i}():\n            {arm}\n" for i in range(branches))
        return f"for epoch in epochs:\n    for batch in batches:\n{arms}        pipe.load_lora_weights(size)\n"

    few, many = steps(training(20)), steps(training(40))
    assert many <= 2.5 * few


def test_nodes_are_those_of_ast() -> None:
    everywhere = ast.expr_context | ast.operator | ast.unaryop | ast.boolop | ast.cmpop
    for case in (case for case in CASES if case.stem != "unreadable.py"):
        for node in ast.walk(ast.parse(case.read_text(encoding="utf-8"))):
            expected = [each for each in ast.iter_child_nodes(node) if not isinstance(each, everywhere)]
            assert children(node) == expected


def test_files_without_the_words_are_skipped_quickly() -> None:
    source = "def function(argument):\n    return [each for each in argument if each]\n\n\n" * 2000
    started = time.process_time()
    assert lint_source(source, "plain.py") == []
    assert 8000 / (time.process_time() - started) > 50_000, "a third of what was measured: machines differ"


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, json, pytest_loraperf.order.lint.run, pytest_loraperf.order.lint.fix;"
        "print(json.dumps([n for n in ('torch', 'numpy', 'pytest', 'diffsynth') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_flake8_gets_every_code() -> None:
    lines = ["pipe.load_lora_weights('a')  # noqa\n", "pipe.transformer.to(torch.float8_e4m3fn)\n"]
    plugin = Flake8Plugin(None, "app.py", lines)
    found = [(line, col, text.split()[0], cls) for line, col, text, cls in plugin.run()]
    assert found == [(2, 0, "LRP107", Flake8Plugin), (2, 0, "LRP110", Flake8Plugin)]
    assert (plugin.name, plugin.off_by_default) == ("pytest-loraperf", False)


def test_flake8_leaves_advice_out_unless_it_is_asked_for() -> None:
    ignored: list[str] = []

    class Manager:
        def extend_default_ignore(self, error_codes: Sequence[str]) -> None:
            ignored.extend(error_codes)

    Flake8Plugin.add_options(Manager())
    assert ignored == ["LRP110"]
