"""Keep LoRA inference fast, small and right: pytest gates for latency, VRAM, output and the order of steps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Generation
    from pytest_loraperf.backends.synthetic import build_synthetic
    from pytest_loraperf.fixtures import LoraPipeline
    from pytest_loraperf.request import Request
    from pytest_loraperf.run.race import Race
    from pytest_loraperf.strategies import (
        ATTACH,
        COMPILE,
        FUSE,
        QUANTIZE,
        Step,
        StepKind,
        Strategy,
        offload,
    )

__version__ = "0.1.0"
__all__ = [
    "ATTACH",
    "COMPILE",
    "FUSE",
    "QUANTIZE",
    "Generation",
    "LoraPipeline",
    "Race",
    "Request",
    "Step",
    "StepKind",
    "Strategy",
    "__version__",
    "build_synthetic",
    "offload",
]

_HOMES = {
    "Generation": "pytest_loraperf.backends.protocol",
    "LoraPipeline": "pytest_loraperf.fixtures",
    "Race": "pytest_loraperf.run.race",
    "Request": "pytest_loraperf.request",
    "build_synthetic": "pytest_loraperf.backends.synthetic",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the entry point imports this package in every pytest run.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "pytest_loraperf.strategies")), name)
