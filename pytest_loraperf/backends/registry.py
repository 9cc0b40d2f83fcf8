"""The backends by name: where each class is, and what to install for it. No library is imported here."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a backend's class is, the extra that installs its library, and the package that is."""

    module: str
    kind: str
    extra: str
    package: str


DEFAULT = "diffsynth"
BACKENDS = {
    "diffsynth": Entry("pytest_loraperf.backends.diffsynth", "DiffSynth", "diffsynth", "diffsynth"),
    "diffusers": Entry("pytest_loraperf.backends.diffusers", "Diffusers", "diffusers", "diffusers"),
}
"""By the word of ``--loraperf-backend``."""
