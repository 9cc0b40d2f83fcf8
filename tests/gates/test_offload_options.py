"""How the offloaded strategies are offloaded, and for which card: on the command line and in the ini."""

from __future__ import annotations

import json
import re

import pytest

# The inner runs share this process, and what it imports of torch can be imported only once in it.
import pytest_loraperf.backends.diffusers  # noqa: F401

DIFFUSERS = ("--loraperf-backend=diffusers",)
CPU = "--loraperf-device=cpu"
TEST = """
    def test_it(low_vram_optimized_pipeline):
        low_vram_optimized_pipeline()
"""
TOO_SMALL = (
    "loraperf: offload[[]stream]: a limit of 180 KB is too small: 190 KB are needed for a block of 149 KB and "
    "what always stays, before anything is computed; raise --loraperf-offload-limit or --gpu-budget"
)


def run(pytester: pytest.Pytester, way: str, option: str, value: str, *more: str) -> pytest.RunResult:
    pytester.makepyfile(TEST)
    if way == "ini":
        pytester.makeini(f"[pytest]\n{option.removeprefix('--').replace('-', '_')} = {value}")
        return pytester.runpytest(CPU, *more)
    return pytester.runpytest(CPU, f"{option}={value}", *more)


@pytest.mark.parametrize("way", ["option", "ini"])
@pytest.mark.parametrize("option", ["--loraperf-offload-limit", "--gpu-budget"])
def test_a_card_without_room_for_a_block(pytester: pytest.Pytester, way: str, option: str) -> None:
    result = run(pytester, way, option, "180KB")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([TOO_SMALL])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize("way", ["option", "ini"])
@pytest.mark.parametrize(
    ("value", "shown"), [("diffsynth", "diffsynth"), ("stream", "stream"), ("auto", "stream")]
)
def test_the_scheme_is_in_the_results(pytester: pytest.Pytester, way: str, value: str, shown: str) -> None:
    result = run(pytester, way, "--loraperf-offload", value, "--loraperf-json=out.json")
    result.assert_outcomes(passed=1)
    found = json.loads((pytester.path / "out.json").read_text())
    assert found["strategies"]["low_vram_optimized"]["steps"][-1] == f"offload[{shown}]"
    note = "low_vram_optimized: the weights are in host memory already: no GPU here"
    assert (note in found["notes"]) is (shown == "diffsynth")


@pytest.mark.parametrize("way", ["option", "ini"])
@pytest.mark.parametrize("option", ["--loraperf-offload-limit", "--gpu-budget"])
def test_diffusers_brings_layers_where_two_blocks_do_not_fit(
    pytester: pytest.Pytester, way: str, option: str
) -> None:
    result = run(
        pytester, way, option, "300KB", *DIFFUSERS, "--gpu-budget-mode=assert", "--loraperf-json=out.json"
    )
    found = json.loads((pytester.path / "out.json").read_text())
    assert found["strategies"]["low_vram_optimized"]["steps"][-1] == "offload[group]"
    (note,) = [note for note in found["notes"] if "one by one" in note]
    assert re.fullmatch(
        "low_vram_optimized: the weights are in host memory already: no GPU here; "
        "layers come one by one: 2 blocks need .* KB of a card of 300 KB",
        note,
    )
    assert result.ret == (0 if option == "--loraperf-offload-limit" else 1), "the CPU holds all weights of it"


@pytest.mark.parametrize("way", ["option", "ini"])
def test_diffusers_refuses_a_card_without_room_for_two_layers(pytester: pytest.Pytester, way: str) -> None:
    result = run(pytester, way, "--loraperf-offload-limit", "50KB", *DIFFUSERS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf: offload[[]group]: a limit of 50 KB is too small: * KB are needed for 2 layers of the *, "
            "before anything is computed; raise --loraperf-offload-limit or --gpu-budget"
        ]
    )
    assert "Traceback" not in result.stdout.str()
