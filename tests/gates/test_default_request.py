"""What is generated where nobody says: at full size only where that takes seconds."""

from __future__ import annotations

import json

import pytest

from pytest_loraperf.gpu.device import Device
from pytest_loraperf.models import UserBuilt
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

SUITE = """
    import pytest
    from pytest_loraperf import Request, build_synthetic

    @pytest.fixture(scope="session")
    def lora_model():
        def build(device):
            return build_synthetic("tiny", device="cpu", weights_on=device)
        return build

    {override}

    def test_it(fused_pipeline):
        fused_pipeline(steps=2)
"""
OVERRIDE = """
    @pytest.fixture(scope="session")
    def lora_request():
        return Request(height=32, width=96)
"""
OWN = UserBuilt(lambda **_: None, "mine:build")


@pytest.mark.parametrize(("override", "size"), [("", (64, 64)), (OVERRIDE, (32, 96))])
def test_a_users_pipeline_on_a_cpu(pytester: pytest.Pytester, override: str, size: tuple[int, int]) -> None:
    pytester.makepyfile(SUITE.replace("{override}", override.strip()))
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-json=out.json")
    result.assert_outcomes(passed=1)
    request = json.loads((pytester.path / "out.json").read_text())["request"]
    assert (request["height"], request["width"]) == size


@pytest.mark.parametrize("model", [OWN, "pretrained:Qwen/Qwen-Image"])
@pytest.mark.parametrize(
    ("cuda", "forecast", "side"), [(False, False, 64), (True, False, 1024), (False, True, 1024)]
)
def test_a_model_of_unknown_size(model: object, cuda: bool, forecast: bool, side: int) -> None:
    session = Session(Settings(forecast=forecast))
    session.__dict__["device"] = Device("cuda:0", "H100", 80 * 2**30, (9, 0)) if cuda else Device("cpu", "CPU")
    request = session.request(model)
    assert (request.height, request.width) == (side, side)


@pytest.mark.parametrize(("size", "side"), [("tiny", 64), ("full", 1024)])
def test_a_model_of_known_size_whatever_the_device(size: str, side: int) -> None:
    assert Session(Settings(device="cpu")).request(f"synthetic:{size}").height == side
