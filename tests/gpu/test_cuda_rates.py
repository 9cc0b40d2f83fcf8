"""On a CUDA device: its rates are those of a GPU, in the time of one, and no generation beats the limit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from pytest_loraperf.cli import main
from pytest_loraperf.gpu.device import resolve_device
from pytest_loraperf.measure.rates import measure_rates
from pytest_loraperf.measure.timing import Stopwatch
from pytest_loraperf.report.results import read_results

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_a_gpu_is_measured_within_seconds() -> None:
    device = resolve_device("cuda")
    watch = Stopwatch(synchronize=device.synchronize, gpu_mark=device.gpu_mark)
    dtypes = ["bfloat16", *(["float8_e4m3fn"] if device.has_fp8_matmul else [])]
    torch.ones(8, 8, device=device.torch_name, dtype=torch.bfloat16).matmul(
        torch.ones(8, 8, device=device.torch_name, dtype=torch.bfloat16)
    )
    start = time.monotonic()
    rates = measure_rates(device, watch, dtypes)
    assert time.monotonic() - start < 5
    assert list(rates.operations) == dtypes
    assert rates.operations["bfloat16"] > 1e12
    if device.has_fp8_matmul:
        assert rates.operations["float8_e4m3fn"] > 1.2 * rates.operations["bfloat16"]
    assert rates.bytes > 1e11
    assert rates.bus_bytes is None or 1e9 < rates.bus_bytes < rates.bytes


def test_strategies_are_below_the_limit(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    names = "--strategies=fused,fused_then_quantize,low_vram"
    main(["bench", "--model=synthetic:tiny", "--device=cuda", "--rounds=3", names, "--limits", f"--json={out}"])
    results = read_results(out)
    shares = {name: each.of_limit for name, each in results.strategies.items() if each.latency}
    assert set(shares) == {"standard_lora", "fused", "fused_then_quantize", "low_vram"}
    assert all(share is not None and 0 < share <= 1.05 for share in shares.values())
    assert all(each.limit.not_counted == () for each in results.strategies.values() if each.limit)
