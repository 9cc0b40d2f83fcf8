"""What the libraries' own loaders find in a LoRA file, whatever it calls its layers, and that a run says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.bench.adapters import Adapters
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.lora import lora_state_dict
from pytest_loraperf.models import parse_model
from pytest_loraperf.order.runtime.declared import declared

CPU = Device("cpu", "CPU")
TINY = parse_model("synthetic:tiny")
RANK = 2


def kohyas(key: str) -> str:
    layer, part, _ = key.rsplit(".", 2)
    return f"lora_unet_{layer.replace('.', '_')}.{'lora_down' if part == 'lora_A' else 'lora_up'}.weight"


NAMES: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "DiffSynth": lambda key: key.replace(".weight", ".default.weight"),
    "down and up": lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
    "PEFT": lambda key: f"base_model.model.{key}",
    "diffusers": lambda key: f"transformer.{key}",
    "ComfyUI": lambda key: f"diffusion_model.{key}",
    "kohya": kohyas,
}


def write(folder: Path, named: Callable[[str], str], shapes: dict[str, tuple[int, int]], names: list[str]) -> Path:
    tensors = {}
    for name in names:
        rows, columns = shapes[name]
        tensors[named(f"{name}.lora_A.weight")] = torch.full((RANK, columns), 0.1)
        tensors[named(f"{name}.lora_B.weight")] = torch.full((rows, RANK), 0.1)
    path = folder / "a.safetensors"
    save_file(tensors, path)
    return path


def weights(dit: torch.nn.Module) -> dict[str, Tensor]:
    return {name: part.weight.clone() for name, part in dit.named_modules() if isinstance(part, torch.nn.Linear)}


class TestDiffSynth:
    @pytest.mark.parametrize("convention", NAMES)
    def test_its_loader_changes_what_is_said(self, convention: str, tmp_path: Path) -> None:
        backend = DiffSynth(CPU)
        pipe = backend.build(TINY, CPU, on_cpu=False)
        targets = backend.lora_targets(pipe)
        path = write(tmp_path, NAMES[convention], backend.lora_shapes(pipe), targets)
        (match,) = Adapters(TINY, [path], backend, "cpu").match(pipe)
        assert sorted(match.matched) == sorted(targets)

        before = weights(pipe.dit)
        with declared():  # else the guard fails the test, as it should
            pipe.load_lora(pipe.dit, str(path))
        left = [name for name, weight in weights(pipe.dit).items() if torch.equal(weight, before[name])]
        assert sorted(match.not_loaded) == sorted(set(left) & set(targets))
        assert bool(match.not_loaded) == (convention in {"PEFT", "diffusers", "kohya"})

    def test_what_the_warning_says_to_do_loads_it(self, tmp_path: Path) -> None:
        backend = DiffSynth(CPU)
        pipe = backend.build(TINY, CPU, on_cpu=False)
        targets = backend.lora_targets(pipe)
        path = write(tmp_path, kohyas, backend.lora_shapes(pipe), targets)
        before = weights(pipe.dit)
        pipe.load_lora(pipe.dit, state_dict=lora_state_dict(path, pipe.dit, pipe.torch_dtype, pipe.device))
        changed = [name for name, weight in weights(pipe.dit).items() if not torch.equal(weight, before[name])]
        assert sorted(changed) == sorted(targets)


@pytest.mark.filterwarnings("ignore")  # PEFT's and diffusers', of keys that they do not know
@pytest.mark.parametrize("convention", NAMES)
def test_diffusers_loader_changes_what_is_said(convention: str, tmp_path: Path) -> None:
    backend = Diffusers(CPU)
    pipe = backend.build(TINY, CPU, on_cpu=False)
    targets = backend.lora_targets(pipe)
    path = write(tmp_path, NAMES[convention], backend.lora_shapes(pipe), targets)
    (match,) = Adapters(TINY, [path], backend, "cpu").match(pipe)
    assert sorted(match.matched) == sorted(targets)

    with declared():
        pipe.load_lora_weights(str(path))
    wrapped = {name for name, part in pipe.transformer.named_modules() if isinstance(part, BaseTunerLayer)}
    assert set(match.not_loaded) == set(targets) - wrapped
    assert bool(match.not_loaded) == (convention in {"plain", "PEFT", "down and up"})


def test_what_the_library_cannot_load_is_loaded_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DiffSynth(CPU)
    pipe = backend.build(TINY, CPU, on_cpu=False)

    def fails(*_: Any) -> set[str]:
        raise KeyError("txt_in")

    monkeypatch.setattr(backend, "lora_loaded", fails)
    path = write(tmp_path, NAMES["plain"], backend.lora_shapes(pipe), backend.lora_targets(pipe))
    (match,) = Adapters(TINY, [path], backend, "cpu").match(pipe)
    assert match.not_loaded == match.matched
    assert match.misnamed == (
        f"adapter {path}: the library's own loader changes 0 of the 28 layers that it is for, by the names in the "
        "file (DiffSynth); the gates go by the model's names: load it by pytest_loraperf.lora.lora_state_dict, or "
        "save it with them"
    )


def test_a_run_warns_once(pytester: pytest.Pytester) -> None:
    backend = DiffSynth(CPU)
    pipe = backend.build(TINY, CPU, on_cpu=False)
    write(pytester.path, kohyas, backend.lora_shapes(pipe), backend.lora_targets(pipe))
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lora_strategy("fused", "standard_lora")
        @pytest.mark.lora_effect(min_gain=0.9)
        def test_it(lora_pipeline):
            lora_pipeline(prompt="a ghost")
        """
    )
    result = pytester.runpytest("--loraperf-adapter=a.safetensors", "--loraperf-model=synthetic:tiny")
    result.assert_outcomes(passed=2)
    said = " ".join(result.stdout.str().split())
    assert (
        said.count("a.safetensors: the library's own loader changes 0 of the 28 layers that it is for, by the")
        == 1
    )
