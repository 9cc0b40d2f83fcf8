"""The meter of a forecast: what is measured on CUDA, from the simulated allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pytest_loraperf.forecast.allocator import CachingAllocator
from pytest_loraperf.forecast.card import Card
from pytest_loraperf.forecast.functions import as_on_cuda
from pytest_loraperf.forecast.pretence import PretendedStream, pretended
from pytest_loraperf.forecast.replay import Replay
from pytest_loraperf.forecast.tracker import StorageTracker

CALL = torch.nn.Module.__call__


class ForecastMeter:
    """VRAM of a card that is not there; one for each forecast."""

    kind = "forecast VRAM"

    def __init__(self, card: Card) -> None:
        self.card = card
        self.allocator = CachingAllocator()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._tracker = StorageTracker(self._fake, self.allocator, card.workspace)
        self.replay = Replay(self._tracker)
        self._depth = 0
        self._streams: list[PretendedStream] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let every operation run without values in this context, and count what it would hold; reentrant."""
        if self._depth:
            yield
            return
        self._depth += 1
        try:
            with ExitStack() as stack:
                stack.enter_context(self._fake)
                torch.empty(0, device="cuda:0")  # torch asks once whether CUDA is there: before it seems to be
                stack.enter_context(self._pretended())
                stack.enter_context(as_on_cuda())
                stack.enter_context(patch.object(torch.nn.Module, "__call__", self.replay.calling(CALL)))
                stack.enter_context(self._tracker)
                yield
        finally:
            self._depth -= 1

    def reset_peak(self) -> None:
        """Give back unused cache, and let the peaks start from what is in use."""
        self.allocator.empty_cache()
        self.allocator.reset_peaks()

    def level(self) -> int:
        """Bytes reserved once unused cache is given back."""
        self.allocator.empty_cache()
        return self.allocator.reserved

    def peak(self) -> int:
        """Bytes reserved at most."""
        return self.allocator.reserved_peak

    def reserved_now(self) -> int:
        """Bytes that the allocator holds."""
        return self.allocator.reserved

    def allocated(self) -> int:
        """Bytes of live tensors."""
        return self.allocator.allocated

    def allocated_peak(self) -> int:
        """Bytes of live tensors at most."""
        return self.allocator.allocated_peak

    def free(self) -> int:
        """Bytes that the card would have left."""
        self.allocator.empty_cache()
        return self.card.total - self._used()

    def overhead(self) -> int:
        """Bytes of CUDA's context and the libraries."""
        return self.card.context + (self.card.copying if self._streams else 0)

    def _pretended(self) -> AbstractContextManager[None]:
        return pretended(self.card, self._used, self._outside, self.allocator, self._compiled, self._streams)

    def _compiled(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a module's compiled call."""
        fusion = self._tracker.fusion

        def fused(*args: Any, **kwargs: Any) -> Any:
            with fusion.block():
                result = call(*args, **kwargs)
            fusion.give_memory(result)
            return result

        return fused

    def _used(self) -> int:
        if self._tracker.recording is not None:
            self._tracker.recording.asked = True
        return self._outside() + self.allocator.reserved

    def _outside(self) -> int:
        return self.card.elsewhere + self.overhead()
