"""The tools that check the CI files, and where those are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def find_tool(name: str) -> str:
    """Find a tool of this environment; without it the test is skipped, but in CI it fails."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        reason = f"{name} is not installed here; run: pip install --group test"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found
