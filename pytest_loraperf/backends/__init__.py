"""The backends: how each library carries out the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_loraperf.backends.quiet import quiet
from pytest_loraperf.errors import LoraperfError

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Backend
    from pytest_loraperf.gpu.device import Device


def load_backend(device: Device) -> Backend:
    """Import the backend of the installed library.

    Raises:
        LoraperfError: DiffSynth is not installed, or cannot be imported; the message says what to install.
    """
    try:
        with quiet():
            from pytest_loraperf.backends.diffsynth import DiffSynth  # noqa: PLC0415 - imports diffsynth
    except ImportError as error:
        raise LoraperfError(
            f"the backend diffsynth cannot be imported ({error}); pip install 'pytest-loraperf[diffsynth]'"
        ) from error
    return DiffSynth(device)
