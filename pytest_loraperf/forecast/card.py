"""The card that is forecast for: what it can do, and what it loses to CUDA before the first tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_loraperf.gpu.device import Device

CUBLAS_WORKSPACE = {9: 32 * 2**20, 10: 32 * 2**20, 11: 32 * 2**20, 12: 32 * 2**20}
"""Bytes by major compute capability: what torch's allocator gives cuBLAS at its first product, and keeps
(``parseChosenWorkspaceSize`` in ATen/cuda/CublasHandlePool.cpp; cuBLASLt shares it)."""
CUBLAS_WORKSPACE_BEFORE = 2 * 4 * 2**20 + 8 * 16 * 2**10
"""Bytes on earlier cards (the same place: ``:4096:2:16:8``)."""


@dataclass(frozen=True)
class Card:
    """A kind of GPU; sizes are bytes.

    ``context`` is what CUDA and the loaded libraries take of the process, ``copying`` what they take more once
    there is a stream that copies from pinned memory; ``elsewhere`` is what the driver says is in use though no
    process holds it: DiffSynth's offloading goes by it.
    """

    name: str
    capability: tuple[int, int]
    total: int
    context: int
    elsewhere: int
    copying: int = 0

    @property
    def workspace(self) -> int:
        """Bytes that cuBLAS works in."""
        return CUBLAS_WORKSPACE.get(self.capability[0], CUBLAS_WORKSPACE_BEFORE)

    def device(self) -> Device:
        """Return this card as a device of a run."""
        from pytest_loraperf.gpu.device import Device  # noqa: PLC0415 - imports torch, which the header does without

        return Device("cuda:0", self.name, self.total, self.capability)


H100 = Card("NVIDIA H100 80GB", (9, 0), 85_022_343_168, 686 * 2**20, 230 * 2**20, 70 * 2**20)
