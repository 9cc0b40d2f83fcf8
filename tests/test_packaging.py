"""What an installed pytest-loraperf promises: its metadata, its imports, and which layer may import what."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[1] / "pytest_loraperf"
HEAVY = frozenset(
    {
        "diffsynth",
        "diffusers",
        "jinja2",
        "numpy",
        "pynvml",
        "safetensors",
        "scipy",
        "torch",
        "torchao",
        "torchvision",
        "transformers",
        "vl_convert",
        "wrapt",
    }
)
MAY_IMPORT_PYTEST = (
    "plugin",
    "hooks",
    "hookspec",
    "fixtures",
    "xdist",
    "order.lint.collector",
)
STARTS_LIGHT = ("plugin", "hooks", "options", "markers", "hookspec", "fixtures", "session")
ALWAYS_LIGHT = (
    "advise",
    "units",
    "verdict",
    "report",
    "markers",
    "options",
    "models",
    "request",
    "errors",
    "limits",
    "workflow",
    "commit",
    "order.lint",
    "order.rules",
)


@pytest.fixture(scope="module")
def installed() -> metadata.Distribution:
    found = next(iter(metadata.distributions(name="pytest-loraperf")), None)
    if found is None:
        pytest.fail("pytest-loraperf is not installed here; run: pip install -e .", pytrace=False)
    return found


@pytest.mark.parametrize(
    ("group", "value"),
    [("pytest11", "pytest_loraperf.plugin"), ("console_scripts", "pytest_loraperf.cli:main")],
)
def test_entry_point_can_be_loaded(installed: metadata.Distribution, group: str, value: str) -> None:
    (entry,) = installed.entry_points.select(group=group)
    assert (entry.name, entry.value) == ("loraperf", value)
    assert entry.load() is not None


@pytest.mark.parametrize("classifier", ["Framework :: Pytest", "Typing :: Typed"])
def test_classifier(installed: metadata.Distribution, classifier: str) -> None:
    assert classifier in installed.metadata.get_all("Classifier", [])


def test_requires_python(installed: metadata.Distribution) -> None:
    assert installed.metadata["Requires-Python"] == ">=3.11"


def test_lowest_pytest(installed: metadata.Distribution) -> None:
    assert "pytest>=8.4" in (installed.requires or [])


def test_package_ships_its_types() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("arguments", [("-v",), ("--co", "-q"), ("--markers",), ("--help",)], ids="".join)
@pytest.mark.usefixtures("installed")
def test_run_without_our_fixtures_imports_nothing_heavy(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins import what they like
    pytester.makepyfile("def test_trivial(): pass")
    pytester.makepyfile(
        import_lister="""
        import json, pathlib, sys

        def pytest_unconfigure():
            pathlib.Path("modules.json").write_text(json.dumps(list(sys.modules)))
        """
    )
    result = pytester.runpytest_subprocess("-p", "loraperf", "-p", "import_lister", *arguments)
    assert result.ret == pytest.ExitCode.OK
    loaded = set(json.loads((pytester.path / "modules.json").read_text()))
    assert "pytest_loraperf.plugin" in loaded
    assert loaded & HEAVY == set()


def test_light_modules_import_nothing_heavy_through_others() -> None:
    names = {name for layer in ALWAYS_LIGHT if layer != "verdict" for name, _ in modules_of(layer)}
    names -= {"pytest_loraperf.report.ranking"}  # statistics need numpy
    code = f"import sys, json, {', '.join(sorted(names))}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert set(json.loads(done.stdout)) & HEAVY == set()


@pytest.mark.parametrize("name", ["page.write", "commands.reporting", "compare.history"])
def test_reports_of_stored_results_never_import_torch(name: str) -> None:
    code = f"import sys, pytest_loraperf.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=PACKAGE.parent).returncode == 0


def modules_of(layer: str) -> list[tuple[str, Path]]:
    """The module of that name below the package, or all modules of the folder of that name."""
    path = PACKAGE.joinpath(*layer.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    if not files or not all(file.is_file() for file in files):
        pytest.fail(f"pytest_loraperf.{layer}: the layer rules name it, but it is not there", pytrace=False)
    return [(dotted(file), file) for file in files]


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(source: str) -> set[str]:
    """The top-level packages that a source imports from outside its own, anywhere, for types too."""
    return set(_roots(ast.walk(ast.parse(source))))


def imported_at_once(source: str) -> set[str]:
    """The top-level packages that importing a source imports: not those in functions or for types alone."""
    return set(_roots(_run_on_import(ast.parse(source))))


def _roots(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _run_on_import(child)


EVERY_KIND_OF_IMPORT = """
import torch.nn as nn, json
from numpy.linalg import norm
from . import torchao
from .scipy import stats
try:
    import pynvml
except ImportError:
    pass
if TYPE_CHECKING:
    from diffsynth import Pipeline
class Lazy:
    import diffusers
    def load(self):
        from safetensors import torch
"""


def test_imports_are_found_wherever_they_stand() -> None:
    at_once = {"torch", "json", "numpy", "pynvml", "diffusers"}
    assert imported_at_once(EVERY_KIND_OF_IMPORT) == at_once
    assert imported(EVERY_KIND_OF_IMPORT) == at_once | {"diffsynth", "safetensors"}


def test_only_the_pytest_layer_imports_pytest() -> None:
    allowed = {name for layer in MAY_IMPORT_PYTEST for name, _ in modules_of(layer)}
    found = {
        dotted(file)
        for file in PACKAGE.rglob("*.py")
        if imported(file.read_text()) & {"pytest", "_pytest", "pluggy"}
    }
    assert found - allowed == set()


@pytest.mark.parametrize("layer", ALWAYS_LIGHT)
def test_light_layer_never_imports_torch(layer: str) -> None:
    heavy = {"torch"} if layer == "verdict" else {"torch", "numpy"}  # statistics need numpy
    found = {name: imported(file.read_text()) & heavy for name, file in modules_of(layer)}
    assert {name: modules for name, modules in found.items() if modules} == {}


@pytest.mark.parametrize("layer", STARTS_LIGHT)
def test_pytest_layer_imports_nothing_heavy_at_once(layer: str) -> None:
    found = {name: imported_at_once(file.read_text()) & HEAVY for name, file in modules_of(layer)}
    assert {name: modules for name, modules in found.items() if modules} == {}


def rooms() -> dict[str, int]:
    """Each module and folder of the package, and its row of the table in CONTRIBUTING, counted from the top."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| in `pytest_loraperf/` | holds |")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name.rstrip("/"): row for row, cell in enumerate(rows) for name in re.findall(r"`([^`]+)`", cell)}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def own_imports(source: str) -> set[str]:
    """The modules of the package, and their folders, that a source imports to run, not for types alone."""
    tree = ast.parse(source)
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found = [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing
    ]
    return {name.split(".")[1] for name in found if name.startswith(f"{PACKAGE.name}.")}


def test_the_table_of_rooms_names_each_once() -> None:
    there = {room_of(file) for file in PACKAGE.rglob("*.py")} - {"__init__"}
    assert set(rooms()) == there


def test_imports_point_down_the_table_only() -> None:
    row = rooms()
    upwards = [
        f"{dotted(file)} -> {name}"
        for file in PACKAGE.rglob("*.py")
        if file.name != "__init__.py" or file.parent != PACKAGE
        for name in own_imports(file.read_text(encoding="utf-8"))
        if row[name] < row[room_of(file)]
    ]
    assert upwards == []


def test_an_import_upwards_is_seen() -> None:
    source = """
from typing import TYPE_CHECKING
from pytest_loraperf.units import format_size
if TYPE_CHECKING:
    from pytest_loraperf.session import Session
def late():
    from pytest_loraperf.run.judging import judge
"""
    assert own_imports(source) == {"units", "run"}
