"""Which library pipelines are built with: by name, on the command line and in the ini."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_loraperf.backends import (
    diffusers,
    diffusers_models,
    group_offloading,
    load_backend,
    offloading,
    quantization,
)
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.registry import BACKENDS, PIPELINES

CPU = Device("cpu", "CPU")
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("name", ["diffsynth", "diffusers"])
def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, BACKENDS[name].module, None)
    expected = rf"the backend {name} cannot be imported \(.*\); pip install 'pytest-loraperf\[{name}\]'"
    with pytest.raises(LoraperfError, match=expected):
        load_backend(CPU, name)


def test_a_backend_for_the_other_major_version_of_the_library() -> None:
    expected = (
        r"^the backend diffsynth1 is for diffsynth 1\.x, but 2\.[\d.]+ is installed; use --loraperf-backend=diffsynth, "
        r"or, in an environment of its own, pip install 'pytest-loraperf\[diffsynth1\]'$"
    )
    with pytest.raises(LoraperfError, match=expected):
        load_backend(CPU, "diffsynth1")


def test_an_unknown_name() -> None:
    with pytest.raises(LoraperfError, match="backend: got 'comfy'; allowed are diffsynth, diffsynth1, diffusers"):
        load_backend(CPU, "comfy")


@pytest.mark.parametrize("way", ["option", "ini"])
def test_an_unknown_name_is_refused_before_anything_is_run(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_backend = comfy")
        result = pytester.runpytest()
    else:
        result = pytester.runpytest("--loraperf-backend=comfy")
    source = "ini value loraperf_backend" if way == "ini" else "--loraperf-backend"
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{source}: got 'comfy'; allowed are *diffsynth, diffsynth1, diffusers*"])


@pytest.mark.parametrize(
    ("name", "pipelines", "schemes", "offloads"),
    [
        ("diffsynth", PIPELINES, quantization.SCHEMES, offloading.SCHEMES),
        ("diffusers", diffusers_models.ASSEMBLERS, diffusers.SCHEMES, group_offloading.SCHEMES),
    ],
)
def test_what_it_offers_is_what_the_backend_has(
    name: str, pipelines: Iterable[str], schemes: Iterable[str], offloads: Iterable[str]
) -> None:
    entry = BACKENDS[name]
    assert (entry.pipelines, entry.schemes, entry.offloads) == (tuple(pipelines), tuple(schemes), tuple(offloads))


@pytest.mark.parametrize("name", list(BACKENDS))
def test_the_extra_installs_the_packages_that_it_needs(name: str) -> None:
    entry = BACKENDS[name]
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"][entry.extra]
    installed = {re.split("[<>=]", each)[0] for each in extras}
    assert {entry.package, *entry.needs} <= installed
