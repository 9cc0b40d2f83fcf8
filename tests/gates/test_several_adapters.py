"""One run with several adapters, such as the checkpoints of one training: each has rows of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pytest_loraperf import build_synthetic
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter

CONFTEST = """
    import pytest

    @pytest.fixture(scope="session", params=["1000", "2000"])
    def lora_adapter(request):
        return f"checkpoint-{request.param}/lora.safetensors"
"""
SUITE = """
    import pytest

    @pytest.mark.vram_budget("8GB")
    def test_it(fused_pipeline):
        fused_pipeline(steps=2)
"""


@pytest.fixture
def checkpoints(pytester: pytest.Pytester) -> pytest.Pytester:
    dit = build_synthetic("tiny", device="cpu", weights_on="cpu").dit
    norms = weight_norms(dit, names=linear_shapes(dit))
    for seed in (1000, 2000):
        folder = pytester.mkdir(f"checkpoint-{seed}")
        write_synthetic_adapter(folder / "lora.safetensors", norms, seed=seed)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    return pytester


@pytest.mark.parametrize(
    "options", [["-n0", "--loraperf-device=cpu"], ["-n2", "--loraperf-device=cpu"], ["-n0", "--loraperf-forecast"]]
)
def test_files_of_one_name_in_two_folders(checkpoints: pytest.Pytester, options: Sequence[str]) -> None:
    checkpoints.runpytest("--loraperf-model=synthetic:tiny", "--loraperf-json=out.json", *options)
    found = json.loads((checkpoints.path / "out.json").read_text())
    plain, other = found["strategies"]
    assert plain == "fused"
    assert other in ("fused (checkpoint-2000/lora.safetensors:1)", "fused (checkpoint-1000/lora.safetensors:1)")
    for name, strategy in found["strategies"].items():
        number = strategy["adapters"][0].removeprefix("checkpoint-").partition("/")[0]
        judged = {each["nodeid"] for each in found["verdicts"] if each["strategy"] == name}
        assert judged == {f"test_files_of_one_name_in_two_folders.py::test_it[{number}]"}
