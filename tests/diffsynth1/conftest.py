"""The tests of the backend for DiffSynth 1.1; where another version is installed, all of them are skipped at once."""

from __future__ import annotations

import warnings
from importlib import metadata

import pytest

INSTALLED = next((found.version for found in metadata.distributions(name="diffsynth")), "none")

if INSTALLED.startswith("1."):
    # Inner runs of pytester share this process; what 1.1 and its libraries warn of when imported is their business.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule() -> None:
    if not INSTALLED.startswith("1."):
        pytest.skip(f"these tests need diffsynth 1.1, found {INSTALLED}: run make test-diffsynth1")
