"""Backends that other packages bring, by entry points: a distribution made on the fly, as pip would have left it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_loraperf.backends import load_backend
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.cli import main
from pytest_loraperf.commands.doctor import Check, diagnose, probe
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import weight_norms, write_synthetic_adapter
from pytest_loraperf.registry import others

CPU = Device("cpu", "CPU")
MODULE = """
from pytest_loraperf.backends.diffsynth import DiffSynth

class Ghostly(DiffSynth):
    name = "ghostly"

    def __init__(self, device):
        super().__init__(device)
        self.version = "7.1"

class Nameless(DiffSynth):
    pass

class Half:
    name, version = "half", "0"

    def __init__(self, device):
        pass

    def recipe(self, strategy, device, choices): ...
    def build(self, model, device, *, on_cpu): ...
    def lora_shapes(self, pipeline): ...
    def lora_targets(self, pipeline): ...
    def apply(self, pipeline, step, adapters): ...
    def generate(self, pipeline, request, tick): ...

class Broken:
    def __init__(self, device):
        raise OSError("libghost.so: cannot open shared object file")
"""
ENTRY_POINTS = """
[pytest_loraperf.backends]
ghostly = ghostly_backends:Ghostly
nameless = ghostly_backends:Nameless
half = ghostly_backends:Half
broken = ghostly_backends:Broken
gone = ghostly_backend:Ghostly
diffusers = ghostly_backends:Ghostly
"""
ALLOWED = "diffsynth, diffsynth1, diffusers, broken, ghostly, gone, half, nameless"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, on the path of this process and of those that it starts."""
    folder = tmp_path / "site"
    info = folder / "ghostly-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ghostly\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "ghostly_backends.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield folder
    sys.modules.pop("ghostly_backends", None)


def refusal(name: str) -> str:
    with pytest.raises(LoraperfError) as caught:
        load_backend(CPU, name)
    return str(caught.value)


@pytest.mark.usefixtures("site")
class TestLoading:
    def test_by_its_name(self) -> None:
        assert (load_backend(CPU, "ghostly").name, load_backend(CPU, "ghostly").version) == ("ghostly", "7.1")

    def test_ours_stays_ours(self) -> None:
        assert "diffusers" not in others()

    def test_an_unknown_name_lists_theirs_too(self) -> None:
        assert refusal("comfy") == f"backend: got 'comfy'; allowed are {ALLOWED}"

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            (
                "gone",
                "ghostly_backend:Ghostly, of ghostly 0.3) cannot be loaded: ModuleNotFoundError: *ghostly_backend*",
            ),
            (
                "broken",
                "ghostly_backends:Broken, of ghostly 0.3) cannot be loaded: OSError: libghost.so: cannot open *",
            ),
            (
                "half",
                "ghostly_backends:Half, of ghostly 0.3) lacks lora_names, lora_loaded, take_base, effect_gains, check, park, unpark; "
                "docs/how-to/backend.md says what each does",
            ),
            (
                "nameless",
                "ghostly_backends:Nameless, of ghostly 0.3) calls itself 'diffsynth'; "
                "its attribute name must be 'nameless'",
            ),
        ],
    )
    def test_what_is_no_backend_is_one_clear_line(self, name: str, line: str) -> None:
        found = refusal(name)
        pytest.LineMatcher([found]).fnmatch_lines([f"the backend {name} (pytest_loraperf.backends: {line}"])
        assert "\n" not in found


def test_none_is_looked_for_where_ours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert load_backend(CPU, "diffsynth").name == "diffsynth"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("way", ["option", "ini"])
def test_a_pytest_run_with_it(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile(
        """
        def test_it(fused_then_quantize_pipeline):
            assert fused_then_quantize_pipeline(steps=2).latents.isfinite().all()
        """
    )
    options = ["--loraperf-device=cpu", "--loraperf-json=out.json"]
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_backend = ghostly")
    else:
        options.append("--loraperf-backend=ghostly")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1)
    found = json.loads((pytester.path / "out.json").read_text())
    assert found["machine"]["backend"] == "ghostly 7.1"


@pytest.mark.usefixtures("site")
def test_a_run_with_an_unknown_name_or_what_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(fused_pipeline): fused_pipeline()")
    result = pytester.runpytest_subprocess("--loraperf-backend=comfy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--loraperf-backend: got 'comfy'; allowed are {ALLOWED}"])
    result = pytester.runpytest_subprocess("--loraperf-backend=gone", "--loraperf-device=cpu")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["loraperf: the backend gone (*) cannot be loaded: ModuleNotFoundError: *"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    "command",
    [
        ["bench", "--device=cpu", "--rounds=3", "--strategies=fused", "--steps=2"],
        ["forecast", "--strategies=fused", "--height=64", "--width=64"],
        ["effect", "LORA", "--device=cpu", "--strategies=fused"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_with_it(tmp_path: Path, command: list[str]) -> None:
    command = [str(write_lora(tmp_path)) if word == "LORA" else word for word in command]
    out = tmp_path / "out.json"
    words = [*command, "--backend=ghostly", "--model=synthetic:tiny", f"--json={out}"]
    assert main(words) == 0
    assert json.loads(out.read_text())["machine"]["backend"] == "ghostly 7.1"


def write_lora(folder: Path) -> Path:
    pipe = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
    norms = weight_norms(pipe.dit, ["transformer_blocks.0.attn.to_q"])
    return write_synthetic_adapter(folder / "lora.safetensors", norms)


@pytest.mark.usefixtures("site")
def test_a_command_with_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--backend=comfy"]) == 2
    assert capsys.readouterr().err == f"loraperf: --backend: got 'comfy'; allowed are {ALLOWED}\n"


@pytest.mark.usefixtures("site")
def test_the_doctor_says_which_there_are_and_what_is_wrong_with_them() -> None:
    theirs = [each for each in diagnose(probe("cpu")) if "ghostly" in each.found]
    assert Check("backends", "ok", "ghostly 7.1: brought by another package") in theirs
    assert sum(each.status == "warn" for each in theirs) == 4
    assert {each.advice for each in theirs if each.status == "warn"} == {
        "mend or upgrade the package that brings it"
    }
