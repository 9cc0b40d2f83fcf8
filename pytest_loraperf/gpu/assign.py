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
) -> None:
    """Let a worker such as ``gw3`` see one GPU alone: the workers take them in turn.

    ``auto`` are those that this process sees, ``count()`` of them where the environment names none; without any,
    nothing is done. CUDA reads the environment when it starts, so this comes before torch is imported.
    """
    if tuple(gpus) == (AUTO,):
        named = environ.get(VISIBLE)
        gpus = (
            [str(each) for each in range(count())]
            if named is None
            else [each for each in named.split(",") if each]
        )
    number = re.sub(r"\D", "", worker)
    if gpus and number:
        environ[VISIBLE] = gpus[int(number) % len(gpus)]
