"""The backends: how each library carries out the steps."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.errors import LoraperfError, said
from pytest_loraperf.registry import BACKENDS, DEFAULT, GROUP, Entry, check_name, others

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Backend
    from pytest_loraperf.gpu.device import Device


def load_backend(device: Device, name: str = DEFAULT) -> Backend:
    """Import a backend, and the library that it is for.

    Raises:
        LoraperfError: there is none of this name, its library is of another major version or cannot be imported,
            or it is no backend; the message says what to do.
    """
    try:
        check_name(name)
    except LoraperfError as error:
        raise LoraperfError(f"backend: {error}") from error
    if name not in BACKENDS:
        return load_other(device, name)
    entry = BACKENDS[name]
    _check_version(name, entry)
    try:
        with quiet():
            kind = getattr(importlib.import_module(entry.module), entry.kind)
    except ImportError as error:
        raise LoraperfError(
            f"the backend {name} cannot be imported ({error}); pip install 'pytest-loraperf[{entry.extra}]'"
        ) from error
    backend: Backend = kind(device, **entry.options)
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


def load_other(device: Device, name: str) -> Backend:
    """Import a backend that an installed package brings.

    Raises:
        LoraperfError: it cannot be imported or made, or lacks something of ``Backend``; the message says what.
    """
    from pytest_loraperf.backends.protocol import Backend as Wanted  # noqa: PLC0415 - torch

    entry = others()[name]
    where = f"the backend {name} ({GROUP}: {entry.value}"
    where += f", of {entry.dist.name} {entry.dist.version})" if entry.dist else ")"
    try:
        with quiet():
            backend: Backend = entry.load()(device)
    except Exception as error:  # whatever the code of others raises
        raise LoraperfError(f"{where} cannot be loaded: {said(error)}") from error
    parts = [*Wanted.__annotations__, *(part for part in vars(Wanted) if not part.startswith("_"))]
    lacking = [part for part in parts if not hasattr(backend, part)]
    if lacking:
        raise LoraperfError(f"{where} lacks {', '.join(lacking)}; docs/how-to/backend.md says what each does")
    if backend.name != name:
        # Results and baselines go by it: under another's name they would be held against that one's.
        raise LoraperfError(f"{where} calls itself {backend.name!r}; its attribute name must be {name!r}")
    return backend
