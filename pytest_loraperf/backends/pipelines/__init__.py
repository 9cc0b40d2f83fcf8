"""What the backend must know of each of DiffSynth's pipelines: one small description a file."""

from __future__ import annotations

import importlib

from pytest_loraperf.backends.pipelines.description import Description


def describe(name: str) -> Description:
    """Return the description of a pipeline of ``registry.PIPELINES``, from the module of its name."""
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    description: Description = module.DESCRIPTION
    return description
