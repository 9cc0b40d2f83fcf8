"""What the libraries' own loaders find in a LoRA file, whatever it calls its layers, and that a run says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffsynth.utils.lora.flux import FluxLoRAConverter
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.diffusers import Diffusers
from pytest_loraperf.bench.adapters import Adapters
from pytest_loraperf.errors import said
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
    "diffusers of before": lambda key: (
        f"transformer.{key.replace('lora_A', 'lora.down').replace('lora_B', 'lora.up')}"
    ),
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
    @pytest.mark.parametrize("model", ["synthetic:tiny", "synthetic:flux:tiny"])
    def test_its_loader_changes_what_is_said(self, model: str, convention: str, tmp_path: Path) -> None:
        backend, spec = DiffSynth(CPU), parse_model(model)
        pipe = backend.build(spec, CPU, on_cpu=False)
        targets = backend.lora_targets(pipe)
        path = write(tmp_path, NAMES[convention], backend.lora_shapes(pipe), targets)
        (match,) = Adapters(spec, [path], backend, "cpu").match(pipe)
        assert sorted(match.matched) == sorted(targets)

        before = weights(pipe.dit)
        try:
            with declared():  # else the guard fails the test, as it should
                pipe.load_lora(pipe.dit, str(path))
        except Exception as error:  # noqa: BLE001 - as the adapters do
            assert match.refused == said(error)  # noqa: PT017 - some raise, and this is what of them is told
            return
        left = [name for name, weight in weights(pipe.dit).items() if torch.equal(weight, before[name])]
        assert match.refused is None
        assert sorted(match.not_loaded) == sorted(set(left) & set(targets))
        if model == "synthetic:tiny":
            known = {"plain", "DiffSynth", "down and up", "ComfyUI"}
            assert bool(match.not_loaded) == (convention not in known)

    @pytest.mark.parametrize("convention", ["kohya", "diffusers", "PEFT"])
    def test_what_the_readme_says_to_do_loads_it(self, convention: str, tmp_path: Path) -> None:
        backend = DiffSynth(CPU)
        pipe = backend.build(TINY, CPU, on_cpu=False)
        targets = backend.lora_targets(pipe)
        path = write(tmp_path, NAMES[convention], backend.lora_shapes(pipe), targets)
        before = weights(pipe.dit)
        pipe.load_lora(pipe.dit, state_dict=lora_state_dict(path, pipe.dit, pipe.torch_dtype, pipe.device))
        changed = [name for name, weight in weights(pipe.dit).items() if not torch.equal(weight, before[name])]
        assert sorted(changed) == sorted(targets)

    def test_looking_changes_nothing_of_the_file(self, tmp_path: Path) -> None:
        backend, spec = DiffSynth(CPU), parse_model("synthetic:flux:tiny")
        pipe = backend.build(spec, CPU, on_cpu=False)
        ours = write(tmp_path, NAMES["plain"], backend.lora_shapes(pipe), backend.lora_targets(pipe))
        theirs = FluxLoRAConverter.align_to_opensource_format(load_file(ours), alpha=RANK / 2)
        path = tmp_path / "kohya.safetensors"
        save_file({key: tensor.clone() for key, tensor in theirs.items()}, path)
        adapters = Adapters(spec, [path], backend, "cpu")
        (first,) = adapters.match(pipe)
        kept = {name: (layer.down.clone(), layer.up.clone()) for name, layer in first.layers.items()}
        (again,) = adapters.match(pipe)
        assert first.misnamed is None
        for name, layer in again.layers.items():
            assert torch.equal(layer.down, kept[name][0])
            assert torch.equal(layer.up, kept[name][1])
        stored = load_file(path)
        assert all(torch.equal(tensor, stored[key]) for key, tensor in first.adapter.tensors.items())

    def test_of_a_pipeline_of_another_kind_nothing_is_said(self, tmp_path: Path) -> None:
        backend = DiffSynth(CPU)
        pipe = backend.build(TINY, CPU, on_cpu=False)
        path = write(tmp_path, kohyas, backend.lora_shapes(pipe), backend.lora_targets(pipe))
        (match,) = Adapters(TINY, [path], backend, "cpu").match(SimpleNamespace(dit=pipe.dit))
        assert match.misnamed is None


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("convention", ["plain", "PEFT", "kohya"])
def test_what_the_readme_says_to_do_loads_it_into_diffusers(convention: str, tmp_path: Path) -> None:
    backend = Diffusers(CPU)
    pipe = backend.build(TINY, CPU, on_cpu=False)
    targets = backend.lora_targets(pipe)
    path = write(tmp_path, NAMES[convention], backend.lora_shapes(pipe), targets)
    lora = lora_state_dict(path, pipe.transformer, pipe.dtype, "cpu")
    pipe.transformer.load_lora_adapter(lora, prefix=None)
    assert targets
    assert {name for name, part in pipe.transformer.named_modules() if isinstance(part, BaseTunerLayer)} == set(
        targets
    )


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (lambda *_: set(), "changes 0 of the 28 layers that it is for"),
        (lambda *_: dict[str, set[str]]()["txt_in"], "raises KeyError: 'txt_in'"),
    ],
    ids=["none", "error"],
)
def test_what_is_said_of_a_loader(
    own: Callable[..., set[str]], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DiffSynth(CPU)
    pipe = backend.build(TINY, CPU, on_cpu=False)
    monkeypatch.setattr(backend, "lora_loaded", own)
    path = write(tmp_path, NAMES["plain"], backend.lora_shapes(pipe), backend.lora_targets(pipe))
    (match,) = Adapters(TINY, [path], backend, "cpu").match(pipe)
    assert match.misnamed == (
        f"adapter {path}: the library's own loader {said}, by the names in the file (DiffSynth); the gates go by the "
        "model's names: load what pytest_loraperf.lora.lora_state_dict returns (README, Adapters)"
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
