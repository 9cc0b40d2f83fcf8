"""Which GPU a worker of pytest-xdist uses."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, Sequence

from pytest_loraperf.errors import LoraperfError

VISIBLE = "CUDA_VISIBLE_DEVICES"
AUTO = "auto"


def read_gpus(text: str) -> tuple[str, ...]:
    """Read ``auto``, or GPUs as ``CUDA_VISIBLE_DEVICES`` names them: numbers or UUIDs, with commas between.

    Raises:
        LoraperfError: it is neither.
    """
    found = tuple(each.strip() for each in text.split(","))
    if not all(re.fullmatch(r"auto|\d+|(GPU|MIG)-[\w-]+", each) for each in found) or (
        AUTO in found and len(found) > 1
    ):
        raise LoraperfError(f"got {text!r}; allowed are auto, or numbers or UUIDs of GPUs such as 0,1")
    return found


def assign_gpu(
    worker: str, gpus: Sequence[str], environ: MutableMapping[str, str], count: Callable[[], int]
) -> Sequence[str]:
    """Let a worker such as ``gw3`` see one GPU alone: the workers take them in turn.

    ``auto`` are those that this process sees, ``count()`` of them where the environment names none; without any,
    nothing is done. CUDA reads the environment when it starts, so this comes before torch is imported.

    Returns:
        The GPUs that are shared out.
    """
    if tuple(gpus) == (AUTO,):
        named = environ.get(VISIBLE)
        gpus = (
            [str(each) for each in range(count())]
            if named is None
            else [each for each in named.split(",") if each]
        )
    number = _number(worker)
    if gpus and number is not None:
        environ[VISIBLE] = gpus[number % len(gpus)]
    return gpus


def is_shared(worker: str, workers: int, gpus: Sequence[str]) -> bool:
    """Whether another of so many workers sees the GPU of this one; a crashed one's number is not used again."""
    number = _number(worker)
    if number is None or not gpus:
        return False
    seen = [gpus[each % len(gpus)] for each in range(max(workers, number + 1))]
    return seen.count(seen[number]) > 1


def _number(worker: str) -> int | None:
    digits = re.sub(r"\D", "", worker)
    return int(digits) if digits else None
