"""The backends: how each library carries out the steps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.backends.registry import BACKENDS, DEFAULT
from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Backend
    from pytest_loraperf.gpu.device import Device


def load_backend(device: Device, name: str = DEFAULT) -> Backend:
    """Import a backend, and the library that it is for.

    Raises:
        LoraperfError: there is none of this name, or its library cannot be imported; the message says what to do.
    """
    if name not in BACKENDS:
        raise LoraperfError(f"backend: got {name!r}; allowed are {', '.join(BACKENDS)}")
    entry = BACKENDS[name]
    try:
        with quiet():
            kind = getattr(importlib.import_module(entry.module), entry.kind)
    except ImportError as error:
        raise LoraperfError(
            f"the backend {name} cannot be imported ({error}); pip install 'pytest-loraperf[{entry.extra}]'"
        ) from error
    backend: Backend = kind(device)
    return backend
