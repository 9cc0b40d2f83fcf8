"""The backends by name: where each class is, what to install for it, what it offers. No library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

QWEN_IMAGE = "qwen-image"
PIPELINES: Mapping[str, Mapping[str, Any]] = {
    QWEN_IMAGE: {},
    "flux": {},
    "wan": {"num_frames": 5, "tiled": False},
    "z-image": {},
}
"""What can be built without a download, and what its requests have besides; see ``backends/pipelines``."""


class Entry(NamedTuple):
    """Where a backend's class is, the extra that installs its library, and the package that is.

    ``major`` is the only major version of the package that it is for, None where any will do; ``needs`` are the
    packages that it imports besides. The backend builds the synthetic ``pipelines``, quantizes by ``schemes`` and
    offloads by ``offloads``. ``options`` are what the class is made with beside the device.
    """

    module: str
    kind: str
    extra: str
    package: str
    pipelines: tuple[str, ...]
    schemes: tuple[str, ...]
    offloads: tuple[str, ...]
    major: int | None = None
    needs: tuple[str, ...] = ()
    options: Mapping[str, bool] = MappingProxyType({})


DEFAULT = "diffsynth"
BACKENDS = {
    "diffsynth": Entry(
        "pytest_loraperf.backends.diffsynth",
        "DiffSynth",
        "diffsynth",
        "diffsynth",
        pipelines=tuple(PIPELINES),
        schemes=("fp8_storage", "fp8_compute", "torchao_fp8_w8a8"),
        offloads=("stream", "diffsynth"),
        major=2,
        options={"draws_later": True},
    ),
    "diffsynth1": Entry(
        "pytest_loraperf.backends.diffsynth1",
        "DiffSynth1",
        "diffsynth1",
        "diffsynth",
        pipelines=(QWEN_IMAGE,),
        schemes=("fp8_storage", "fp8_compute", "fp8_loaded"),
        offloads=("diffsynth",),
        major=1,
    ),
    "diffusers": Entry(
        "pytest_loraperf.backends.diffusers",
        "Diffusers",
        "diffusers",
        "diffusers",
        pipelines=(QWEN_IMAGE, "flux"),
        schemes=("fp8_storage", "torchao_fp8_w8a8"),
        offloads=("group",),
        needs=("peft", "transformers", "accelerate"),
    ),
}
"""By the word of ``--loraperf-backend``."""
GROUP = "pytest_loraperf.backends"
"""The entry points by which other packages bring backends, each the name and where the class is."""


def others() -> dict[str, EntryPoint]:
    """Return the backends that installed packages bring, by name; a name of ours stays ours."""
    from importlib import metadata  # noqa: PLC0415 - start-up

    return {each.name: each for each in metadata.entry_points(group=GROUP) if each.name not in BACKENDS}


def check_name(name: str) -> str:
    """Return the name of a backend; those of others are looked for only where it is none of ours.

    Raises:
        LoraperfError: there is none; the message has all names.
    """
    if name not in BACKENDS and name not in (theirs := others()):
        raise LoraperfError(f"got {name!r}; allowed are {', '.join((*BACKENDS, *sorted(theirs)))}")
    return name
