"""What this machine does in a second: matrix products by dtype, copies in its memory, copies from the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import torch

from pytest_loraperf.errors import ClockError
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.pinned import HostMemory
from pytest_loraperf.limits import Rates
from pytest_loraperf.measure.timing import Call, Stopwatch

LEAST, MOST = 3, 12
"""Samples of a rate."""
NO_SUCH_PRODUCT = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What torch raises for a product that this device or this version has not."""


@dataclass(frozen=True)
class Sizes:
    """What is multiplied and copied: the side of square matrices, bytes, and seconds of one rate's samples.

    ``calls`` are launched one after another for a sample, so that launching is no part of the rate.
    """

    side: int
    copied: int
    seconds: float
    calls: int


ON_CUDA = Sizes(side=8192, copied=2**28, seconds=0.1, calls=4)
"""Far beyond the caches: an H100 has 50 MB of L2. A product takes 1.5 ms there, and all rates half a second."""
ON_CPU = Sizes(side=512, copied=2**26, seconds=0.05, calls=1)


def measure_rates(
    device: Device, watch: Stopwatch, dtypes: Iterable[str], known: Rates | None = None, sizes: Sizes | None = None
) -> Rates:
    """Return the medians for products of these dtypes and for copies; what is known is not measured again.

    A dtype that has no product here has no rate.

    Raises:
        ClockError: a sample took no time by the clock.
        torch.OutOfMemoryError: the device has no room for some hundred MB.
    """
    chosen = sizes or (ON_CUDA if device.is_cuda else ON_CPU)
    bench = _Rate(device, watch, chosen)
    operations = dict(known.operations) if known else {}
    for dtype in dtypes:
        if dtype not in operations and (rate := _product(bench, getattr(torch, dtype))) is not None:
            operations[dtype] = rate
    return Rates(
        operations=operations,
        bytes=known.bytes if known else _copy(bench),
        bus_bytes=known.bus_bytes if known else _bus(bench),
    )


@dataclass(frozen=True)
class _Rate:
    device: Device
    watch: Stopwatch
    sizes: Sizes

    def of(self, work: int, call: Call) -> float:
        """Return so much work a call, a second: the median of samples after a call that warms up.

        The GPU's own time counts where there is one.
        """
        self.watch.time(call)
        seconds: list[float] = []
        while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < self.sizes.seconds):
            sample = self.watch.sample(lambda _tick: [call() for _ in range(self.sizes.calls)])
            seconds.append(sample.seconds if sample.gpu_seconds is None else sample.gpu_seconds)
        typical = median(seconds)
        if typical <= 0:
            raise ClockError(
                "a matrix product or a copy took no time by the clock, which is too coarse or stands still; "
                "mend the clock, or leave out --loraperf-limits"
            )
        return work * self.sizes.calls / typical


def _product(bench: _Rate, dtype: torch.dtype) -> float | None:
    side = bench.sizes.side
    try:
        call = _multiply(bench.device, side, dtype)
        call()
    except torch.OutOfMemoryError:
        raise
    except NO_SUCH_PRODUCT:
        return None
    return bench.of(2 * side**3, call)


def _multiply(device: Device, side: int, dtype: torch.dtype) -> Call:
    """Return a call that multiplies random matrices: with zeros, a GPU draws less power and is faster."""
    shape, where = (side, side), device.torch_name
    if dtype.itemsize > 1:
        left, right = (torch.randn(shape, dtype=dtype, device=where) for _ in range(2))
        out = torch.empty(shape, dtype=dtype, device=where)
        return lambda: torch.mm(left, right, out=out)
    left, right = (torch.randn(shape, dtype=torch.bfloat16, device=where).to(dtype) for _ in range(2))
    scale = torch.ones((), device=where)
    # As torchao calls it: the second matrix by columns, sums kept in the tensor cores' own width.
    product: Callable[..., object] = torch._scaled_mm  # noqa: SLF001 - its only name
    fast = {"use_fast_accum": True} if device.is_cuda else {}
    return lambda: product(left, right.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, **fast)


def _copy(bench: _Rate) -> float:
    source, target = (_random_bytes(bench.sizes.copied, bench.device.torch_name) for _ in range(2))
    return bench.of(source.nbytes + target.nbytes, lambda: target.copy_(source))


def _bus(bench: _Rate) -> float | None:
    if not bench.device.is_cuda:
        return None
    target = _random_bytes(bench.sizes.copied, bench.device.torch_name)
    try:
        memory = HostMemory(target.nbytes, pinned=True)
    except RuntimeError:
        return None
    memory.bytes.copy_(target)
    return bench.of(target.nbytes, lambda: target.copy_(memory.bytes, non_blocking=True))


def _random_bytes(size: int, device: str) -> torch.Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8, device=device)
