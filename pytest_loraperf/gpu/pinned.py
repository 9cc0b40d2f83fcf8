"""Host memory that a GPU copies from: at the full speed of its bus, while it computes, where it is pinned."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch._guards import detect_fake_mode

from pytest_loraperf.host import spare_memory

WORKERS = 8
"""Threads that make memory at once: the kernel zeroes all pages first, which is slow in one thread."""
MARGIN = 2**31
"""Bytes of host memory that are never pinned: what is pinned cannot be swapped out, and the rest must live."""


class HostMemory:
    """Bytes of host memory; those that are pinned are copied at full speed, as long as a tensor lies in them.

    They are registered with CUDA: torch's allocator of pinned memory would round them up to a power of two and
    keep them until the process ends.

    Raises:
        RuntimeError: the host does not have so much, or does not let it be pinned.
    """

    def __init__(self, size: int, *, pinned: bool) -> None:
        # A map of its own starts with a page, and a page is not registered twice.
        self._held = (ctypes.c_char * max(size, 1)).from_buffer(_map(size, pinned=pinned))
        self.bytes = torch.frombuffer(self._held, dtype=torch.uint8)[:size]
        self.pinned = pinned and size > 0
        self.why_not = ""
        # A first touch makes the page, which other threads' pages need not wait for; registering them would.
        self.bytes[:: mmap.PAGESIZE] = 0
        if self.pinned:
            self._pin()

    def _pin(self) -> None:
        cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        address, size = self.bytes.data_ptr(), self.bytes.numel()
        failure = int(cudart.cudaHostRegister(address, size, 0))
        if failure:
            # CUDA tells of the failure again at the next launch: let that be one of ours.
            with contextlib.suppress(RuntimeError):
                torch.ones(1, device="cuda")
            raise RuntimeError(f"{size} bytes of host memory cannot be pinned: CUDA error {failure}")
        # Runs before the memory is given back: the tensors hold what is finalized, and that holds the map.
        weakref.finalize(self._held, cudart.cudaHostUnregister, address).atexit = False


def _map(size: int, *, pinned: bool) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise RuntimeError(f"{size} bytes of host memory cannot be had: {error}") from error
    # Fewer, larger pages are made sooner; and a fork would copy all that is pinned, which no child can use.
    for advice in (mmap.MADV_HUGEPAGE, *((mmap.MADV_DONTFORK,) if pinned else ())):
        with contextlib.suppress(OSError):  # a kernel without it does as ever
            memory.madvise(advice)
    return memory


def why_not_pinned(size: int) -> str | None:
    """Say why so many bytes had better not be pinned, or None."""
    spare = spare_memory()
    if 0 < spare < size + MARGIN:  # 0 where the host does not tell
        return f"{size / 2**30:.1f} GB to pin, {spare / 2**30:.1f} GB of host memory available"
    return None


def host_memories(sizes: Sequence[int], device: torch.device, *, pin: bool = True) -> Iterator[HostMemory]:
    """Yield host memory of each size, to be pinned for a CUDA device where that can be; several are made at once.

    What cannot be pinned is plain memory, and says why. Where tensors are fake, for a forecast, this is too.
    """
    if detect_fake_mode() is not None:
        yield from map(_FakeMemory, sizes)
        return
    pinned = pin and device.type == "cuda"
    why_not = why_not_pinned(sum(sizes)) if pinned else None
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        waiting = deque(pool.submit(_host_memory, size, device, pinned=pinned, why_not=why_not) for size in sizes)
        try:
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # nobody wants the rest of them


class _FakeMemory(HostMemory):
    """Host memory that nobody has: its bytes are a fake tensor, which other threads could not make."""

    def __init__(self, size: int) -> None:
        self.bytes = torch.empty(size, dtype=torch.uint8)
        self.pinned, self.why_not = True, ""


def _host_memory(size: int, device: torch.device, *, pinned: bool, why_not: str | None) -> HostMemory:
    if pinned and why_not is None:
        try:
            with torch.cuda.device(device):
                return HostMemory(size, pinned=True)
        except RuntimeError as error:
            why_not = str(error)
    memory = HostMemory(size, pinned=False)
    memory.why_not = why_not or ""
    return memory
