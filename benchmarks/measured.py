"""Files that the scripts of ``benchmarks/h100/`` wrote of what they measured; each has its own fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_measured(file: Path) -> dict[str, Any]:
    """Return what such a file holds."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
