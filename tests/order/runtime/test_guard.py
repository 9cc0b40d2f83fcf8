"""The guard in pytest: a fake diffusers whose pipeline offloads and fuses, in the right order and the wrong one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from textwrap import indent

import pytest
import torch  # the inner runs share this process, and torch can be imported only once in it

DIFFUSERS = """
import torch

class FluxPipeline:
    def __init__(self):
        self.transformer = torch.nn.Linear(2, 2)
    def load_lora_weights(self, path, adapter_name=None, hotswap=False): pass
    def fuse_lora(self, components=None):
        if components == "broken":
            raise ValueError("no such component")
        return self
    def enable_model_cpu_offload(self): pass

def wrong(pipe):
    pipe.enable_model_cpu_offload()
    pipe.fuse_lora()
"""
HEAD = "import pytest\nfrom diffusers import FluxPipeline\n\n"
WRONG = """
def helper(pipe):
    pipe.fuse_lora()

def test_wrong():
    pipe = FluxPipeline()
    pipe.enable_model_cpu_offload()
    helper(pipe)
"""
MESSAGE = "loraperf LRP106: pipe.fuse_lora fuses a LoRA after pipe.enable_model_cpu_offload offloaded the model"


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project beside a fake diffusers."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:asyncio -p no:rerunfailures")
    pytester.makepyfile(diffusers=DIFFUSERS)
    pytester.syspathinsert()
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)  # the real one, which tests of the backend import
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=":")
    return pytester


def test_a_broken_rule_fails_its_test_with_both_sites(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=HEAD + WRONG)
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"{MESSAGE} (test_it.py:10); fuse the LoRA first, then enable offloading",
            "  here:  test_it.py:6: pipe.fuse_lora() (called from test_it.py:11)",
            "  after: test_it.py:10: pipe.enable_model_cpu_offload()",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("arguments", "ini", "outcomes", "told"),
    [
        ((), "", {"failed": 1}, 0),
        ((), "warn", {"passed": 1}, 1),
        (("--loraperf-order=warn",), "", {"passed": 1}, 1),
        (("--loraperf-order=off",), "", {"passed": 1}, 0),
        ((), "off", {"passed": 1}, 0),
        (("--loraperf-order=error",), "off", {"failed": 1}, 0),
    ],
)
def test_modes(
    pytester: pytest.Pytester, arguments: tuple[str, ...], ini: str, outcomes: dict[str, int], told: int
) -> None:
    pytester.makeini(f"[pytest]\nloraperf_order = {ini}")
    pytester.makepyfile(test_it=HEAD + WRONG)
    # Where this one is off, the guard of the outer run would find it.
    run = pytester.runpytest_subprocess if told == 0 and "passed" in outcomes else pytester.runpytest
    result = run(*arguments)
    result.assert_outcomes(**outcomes)
    assert result.ret == (pytest.ExitCode.OK if "passed" in outcomes else pytest.ExitCode.TESTS_FAILED)
    assert str(result.stdout).count("warning: loraperf LRP106") == told


def test_an_unknown_mode_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--loraperf-order=loud")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--loraperf-order: got 'loud'; allowed are error, warn, off"])


def test_marker_xfail_noqa_and_what_the_test_says_itself(pytester: pytest.Pytester) -> None:
    body = """
    from diffusers import wrong

    @pytest.fixture
    def built():
        pipe = FluxPipeline()
        pipe.enable_model_cpu_offload()
        pipe.fuse_lora()
        return pipe

    @pytest.mark.allow_order("LRP106", reason="as the vendor's example does")
    def test_allowed():
        pipe = FluxPipeline()
        pipe.enable_model_cpu_offload()
        pipe.fuse_lora()

    @pytest.mark.allow_order("LRP105", reason="another rule")
    def test_another_is_allowed(built):
        pass

    @pytest.mark.xfail(strict=True, reason="known")
    def test_xfail(built):
        pass

    def test_noqa():
        pipe = FluxPipeline()
        pipe.enable_model_cpu_offload()
        pipe.fuse_lora()  # noqa: LRP106

    def test_fails_itself(built):
        assert 1 == 2, "its own reason"

    def test_skips(built):
        pytest.skip("later")

    def test_right():
        pipe = FluxPipeline()
        assert pipe.fuse_lora() is pipe
        pipe.enable_model_cpu_offload()

    def test_expects_the_error():
        pipe = FluxPipeline()
        pipe.enable_model_cpu_offload()
        with pytest.raises(ValueError, match="no such component"):
            pipe.fuse_lora(components="broken")

    def test_gets_the_error():
        pipe = FluxPipeline()
        pipe.enable_model_cpu_offload()
        pipe.fuse_lora(components="broken")

    class TestTwoPipelines:
        def test_other(self):
            one, other = FluxPipeline(), FluxPipeline()
            one.enable_model_cpu_offload()
            other.fuse_lora()

    def test_in_a_library():
        wrong(FluxPipeline())
    """
    pytester.makepyfile(test_it=HEAD + "\n".join(line[4:] for line in body.splitlines()))
    result = pytester.runpytest("-rA")
    result.assert_outcomes(passed=5, failed=5, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "PASSED test_it.py::test_allowed",
            "PASSED test_it.py::test_noqa",
            "PASSED test_it.py::test_right",
            "PASSED test_it.py::test_expects_the_error",
            "PASSED test_it.py::TestTwoPipelines::test_other",
            "FAILED test_it.py::test_another_is_allowed - Failed: loraperf LRP106*",
            "FAILED test_it.py::test_fails_itself - AssertionError: its own reason*",
            "FAILED test_it.py::test_skips - Failed: loraperf LRP106*",
            "FAILED test_it.py::test_gets_the_error - ValueError: no such component",
            "FAILED test_it.py::test_in_a_library - Failed: loraperf LRP106*",
        ]
    )
    assert str(result.stdout).count("loraperf order") == 2  # a section beside the failures of their own


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ('"LRP106"', "missing a required argument: 'reason'*"),
        ('"LRP106", reason=""', "reason=''; say why the order is right here"),
        ('"LRP999", reason="x"', "code='LRP999'; the codes are LRP101, *"),
    ],
)
def test_the_marker_is_strict(pytester: pytest.Pytester, marker: str, problem: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.allow_order({marker})\ndef test_it(): pass")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*@pytest.mark.allow_order: {problem}"])


@pytest.mark.parametrize("place", ["module", "conftest", "session teardown"])
def test_outside_of_a_test_the_run_fails(pytester: pytest.Pytester, place: str) -> None:
    wrong = "pipe = FluxPipeline()\npipe.enable_model_cpu_offload()\npipe.fuse_lora()\n"
    passes = "def test_passes(): pass\n"
    if place == "module":
        pytester.makepyfile(test_it=HEAD + wrong + passes)
    elif place == "conftest":
        pytester.makeconftest(HEAD + wrong)
        pytester.makepyfile(test_it=passes)
    else:
        fixture = "@pytest.fixture(scope='session', autouse=True)\ndef whole():\n    yield\n"
        pytester.makepyfile(test_it=HEAD + fixture + indent(wrong, "    ") + passes)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"error, outside of a test: {MESSAGE[:40]}*"])


def test_inner_runs_leave_nothing(pytester: pytest.Pytester) -> None:
    import sys

    before = list(sys.meta_path), torch.compile, vars(torch.nn.Module)["compile"]
    pytester.makepyfile(test_it=HEAD + WRONG)
    for _ in range(2):
        pytester.runpytest_inprocess().assert_outcomes(failed=1)
    assert (list(sys.meta_path), torch.compile, vars(torch.nn.Module)["compile"]) == before


def test_xdist_workers_watch_too(pytester: pytest.Pytester) -> None:
    at_import = "pipe = FluxPipeline()\npipe.enable_model_cpu_offload()\npipe.fuse_lora()\n"
    pytester.makepyfile(test_it=HEAD + at_import + WRONG, test_other="def test_passes(): pass")
    result = pytester.runpytest_subprocess("-n1")
    result.assert_outcomes(failed=1, passed=1)
    assert str(result.stdout).count("error, outside of a test: loraperf LRP106") == 1


LISTER = """
import json, pathlib, sys

def pytest_unconfigure():
    names = [n for n in sys.modules if n.startswith(("wrapt", "torch", "pytest_loraperf.order"))]
    pathlib.Path("modules.json").write_text(json.dumps(names))
"""


@pytest.mark.parametrize("mode", ["error", "off"])
def test_what_is_imported_where_no_library_is(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(lister=LISTER, test_it="def test_trivial(): pass")
    result = pytester.runpytest_subprocess("-p", "lister", f"--loraperf-order={mode}", "-p", "no:xdist")
    result.assert_outcomes(passed=1)
    loaded = json.loads((pytester.path / "modules.json").read_text())
    allowed = {f"pytest_loraperf.order{rest}" for rest in ("", ".runtime", ".runtime.watch")}
    assert set(loaded) <= allowed


DIFFSYNTH = {
    "diffsynth/__init__.py": "",
    "diffsynth/lora/__init__.py": """
import torch

class GeneralLoRALoader:
    def __init__(self, device="cpu", torch_dtype=torch.float32):
        pass
    def get_name_dict(self, state):
        names = [key.partition(".lora_B.")[0] for key in state if ".lora_B." in key]
        return {name: (f"{name}.lora_B.default.weight", f"{name}.lora_A.default.weight") for name in names}
    def load(self, model, state_dict_lora, alpha=1.0):
        self.get_name_dict(state_dict_lora)
""",
    "diffsynth/pipelines/qwen_image.py": """
import torch
from ..lora import GeneralLoRALoader

class QwenImagePipeline(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dit = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).to(dtype)
    def load_lora(self, module, lora_config=None, alpha=1, hotload=False, state_dict=None):
        lora = {f"0.lora_{side}.default.weight": torch.zeros(2, 2) for side in "AB"}
        GeneralLoRALoader().load(module, lora, alpha=alpha)
    def enable_vram_management(
        self, num_persistent_param_in_dit=None, vram_limit=None, vram_buffer=0.5, auto_offload=True,
        enable_dit_fp8_computation=False,
    ):
        self.vram_management_enabled = True
""",
}
SEED = {
    "slow": """
# DON'T DO THIS - Quantization slows down LoRA loading
pipe.enable_vram_management(enable_dit_fp8_computation=True)
pipe.load_lora(pipe.dit, lora_path)  # Slow!
""",
    "fast": """
# DO THIS - Load LoRA first, then enable quantization
pipe.load_lora(pipe.dit, lora_path)
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
    "fastest": """
# BEST - Fuse LoRA to eliminate runtime overhead
lora_loader = GeneralLoRALoader(torch_dtype=torch.bfloat16, device="cuda")
lora_loader.load(pipe.dit, lora_state_dict, alpha=1.0)
pipe.enable_vram_management(enable_dit_fp8_computation=True)
""",
}
FOUND = {
    ("slow", "bfloat16"): {"LRP103", "LRP106"},
    ("slow", "float8_e4m3fn"): {"LRP101", "LRP106"},
    ("fast", "bfloat16"): {"LRP103"},
    ("fast", "float8_e4m3fn"): {"LRP101"},  # merged into fp8 weights: measured, a weak adapter is lost
    ("fastest", "bfloat16"): {"LRP103"},
    ("fastest", "float8_e4m3fn"): {"LRP101"},
}


def test_the_seeds_snippets(pytester: pytest.Pytester) -> None:
    for path, text in DIFFSYNTH.items():
        file = Path(pytester.path / path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    lines = [
        "import torch",
        "from diffsynth.lora import GeneralLoRALoader",
        "from diffsynth.pipelines.qwen_image import QwenImagePipeline",
        "lora_path = 'a.safetensors'",
        "lora_state_dict = {f'0.lora_{side}.default.weight': torch.zeros(2, 2) for side in 'AB'}",
    ]
    for name, dtype in FOUND:
        lines += [
            f"def test_{name}_{dtype}():",
            f"    pipe = QwenImagePipeline(torch.{dtype})",
            indent(SEED[name], "    "),
        ]
    pytester.makepyfile(test_seed="\n".join(lines))
    result = pytester.runpytest_subprocess("-vv")
    text = str(result.stdout)
    for (name, dtype), codes in FOUND.items():
        _, _, section = text.partition(f"_ test_{name}_{dtype} _")
        section = re.split("\n[_=]{4}", section)[0]
        found = {line.split()[1].rstrip(":") for line in section.splitlines() if line.startswith("loraperf LRP")}
        assert found == codes, (name, dtype)
