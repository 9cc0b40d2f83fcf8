"""What the memory of a pipeline is: its weights by part, and the call in which most is live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import nn

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.tensors import tensors_of
from pytest_loraperf.measure.memory import Meter
from pytest_loraperf.verdict.spent import Spent

if TYPE_CHECKING:
    from pytest_loraperf.bench.arm import Arm
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.request import Request

Call = tuple[str, int]
"""A module by its name, and the bytes that were live in its call beyond the start of the generation."""


def parts_of(pipeline: object) -> dict[nn.Module, str]:
    """Return the name of the part that each module of a pipeline is of.

    A list of blocks is a part; the rest of each model is another.
    """
    if not isinstance(pipeline, nn.Module):
        return {}
    names: dict[nn.Module, str] = {}
    lists: dict[str, str] = {}
    for path, module in pipeline.named_modules():
        inside = next((part for start, part in lists.items() if path.startswith(f"{start}.")), None)
        if inside is None and isinstance(module, nn.ModuleList) and len(module) > 1:
            inside = lists[path] = f"{path}, {len(module)} blocks"
        names[module] = inside or f"{path.partition('.')[0] or 'the pipeline'}, the rest"
    return names


def weights_by_part(pipeline: object, device: str) -> tuple[tuple[str, int], ...]:
    """Return the bytes of the weights on this kind of device by part of the model and type, the largest first."""
    sizes: dict[str, int] = defaultdict(int)
    seen: set[tuple[int, int]] = set()
    for module, part in parts_of(pipeline).items():
        for tensor in tensors_of(module, recurse=False):
            place = tensor.untyped_storage()._cdata, int(tensor.storage_offset())  # noqa: SLF001 - the one identity a storage has
            if tensor.device.type == device and place not in seen:
                seen.add(place)
                sizes[f"{part} ({str(tensor.dtype).removeprefix('torch.')})"] += tensor.nbytes
    return tuple(sorted(sizes.items(), key=lambda pair: -pair[1]))


class PeakFinder:
    """Finds the module in whose own call the live tensors were the most, those of a call inside it left out.

    It asks the meter whenever a call begins or ends. ``found`` has the module's name, and bytes beyond the start.
    """

    def __init__(self, meter: Meter, pipeline: object) -> None:
        self.found: Call | None = None
        self._meter = meter
        modules = pipeline.named_modules() if isinstance(pipeline, nn.Module) else ()
        self._names = {id(module): name or "the pipeline" for name, module in modules}
        self._calls: list[str] = []
        self._start = self._most = 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at the calls of modules in this context, those of compiled modules as a whole."""
        self._start, self._most = self._meter.allocated(), self._meter.allocated_peak()
        call: Callable[..., Any] = nn.Module.__call__

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self._look()
            self._calls.append(self._names.get(id(module)) or (self._calls or ["the pipeline"])[-1])
            try:
                return call(module, *args, **kwargs)
            finally:
                self._look()
                self._calls.pop()

        with patch.object(nn.Module, "__call__", watched):
            yield
        self._look()

    def _look(self) -> None:
        peak = self._meter.allocated_peak()
        if peak > self._most:
            self._most = peak
            self.found = (self._calls or ["the pipeline"])[-1], peak - self._start


def of_arm(bench: Bench, name: str, phase: str, requests: Sequence[Request]) -> Spent:
    """Take apart what an arm needs in a phase.

    For ``runtime`` each request is run once more, to look at its calls; what cannot be is told without that.
    """
    call = None
    if phase == "runtime":
        with suppress(LoraperfError, torch.OutOfMemoryError):
            call = _largest_call(bench, name, {request.key: request for request in requests})
    return spent(bench.arms[name], phase, bench.shop.ledger.meter, call)


def _largest_call(bench: Bench, name: str, requests: Mapping[str, Request]) -> Call | None:
    found: list[Call] = []
    for request in requests.values():
        finder = PeakFinder(bench.shop.ledger.meter, bench.arm(name).pipeline)
        with finder.looking():
            bench.run_aside(name, request)
        found += [finder.found] if finder.found is not None else []
    return max(found, key=lambda call: call[1], default=None)


def spent(arm: Arm, phase: str, meter: Meter, call: Call | None = None) -> Spent:
    """Return what is known of a phase of an arm: weights are those that are on the device after a generation."""
    outside = meter.overhead()
    if phase == "setup":
        peak = arm.setup_peak
        return Spent(peak.allocated, max(0, peak.needed - outside - peak.allocated), outside)
    device = "cpu" if meter.kind == "tensor bytes" else "cuda"
    weights = weights_by_part(arm.pipeline, device)
    if phase == "resident":
        live, needed = sum(size for _, size in weights), arm.resident
    else:
        live, needed = arm.runtime_peak.allocated, arm.runtime_peak.needed
    return Spent(live, max(0, needed - outside - live), outside, weights, call if phase == "runtime" else None)
