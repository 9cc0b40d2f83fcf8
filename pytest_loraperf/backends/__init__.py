"""The backends: how each library carries out the steps."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.registry import BACKENDS, DEFAULT, Entry

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Backend
    from pytest_loraperf.gpu.device import Device


def load_backend(device: Device, name: str = DEFAULT) -> Backend:
    """Import a backend, and the library that it is for.

    Raises:
        LoraperfError: there is none of this name, or its library is of another major version or cannot be
            imported; the message says what to do.
    """
    if name not in BACKENDS:
        raise LoraperfError(f"backend: got {name!r}; allowed are {', '.join(BACKENDS)}")
    entry = BACKENDS[name]
    _check_version(name, entry)
    try:
        with quiet():
            kind = getattr(importlib.import_module(entry.module), entry.kind)
    except ImportError as error:
        raise LoraperfError(
            f"the backend {name} cannot be imported ({error}); pip install 'pytest-loraperf[{entry.extra}]'"
        ) from error
    backend: Backend = kind(device)
    return backend


def _check_version(name: str, entry: Entry) -> None:
    try:
        found = metadata.version(entry.package)
    except metadata.PackageNotFoundError:
        return  # importing it says so
    major = found.partition(".")[0]
    if entry.major is None or major == str(entry.major):
        return
    fitting = [other for other, its in BACKENDS.items() if (its.package, str(its.major)) == (entry.package, major)]
    instead = f"use --loraperf-backend={fitting[0]}, or, " if fitting else ""
    raise LoraperfError(
        f"the backend {name} is for {entry.package} {entry.major}.x, but {found} is installed; {instead}in an "
        f"environment of its own, pip install 'pytest-loraperf[{entry.extra}]'"
    )
