"""The backends by name: where each class is, and what to install for it. No library is imported here."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a backend's class is, the extra that installs its library, and the package that is.

    ``major`` is the only major version of the package that it is for, None where any will do.
    """

    module: str
    kind: str
    extra: str
    package: str
    major: int | None = None


DEFAULT = "diffsynth"
BACKENDS = {
    "diffsynth": Entry("pytest_loraperf.backends.diffsynth", "DiffSynth", "diffsynth", "diffsynth", 2),
    "diffsynth1": Entry("pytest_loraperf.backends.diffsynth1", "DiffSynth1", "diffsynth1", "diffsynth", 1),
    "diffusers": Entry("pytest_loraperf.backends.diffusers", "Diffusers", "diffusers", "diffusers"),
}
"""By the word of ``--loraperf-backend``."""
