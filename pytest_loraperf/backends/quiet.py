"""What the libraries print and warn of: kept out of the terminal and of suites where a warning is an error."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop prints ("840 tensors are fused…") and warnings, on which nobody could act: of imports and steps.

    torch logs some of what it warns of; its errors are left.
    """
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Show each warning once, whatever the user's filters make of it: inductor's must not break a compilation."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # DiffSynth's text encoder calls transformers the old way, at every generation; no user can act on it.
        warnings.filterwarnings("ignore", "`past_key_values` is deprecated", FutureWarning)
        yield
