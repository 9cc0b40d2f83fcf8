"""The errors that a user sees: each is one clear line that says what was found and what to do."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path


class LoraperfError(Exception):
    """What the user gave cannot be used; the message is one line, shown without a traceback."""


def said(error: BaseException) -> str:
    """Return what an error says in one line: ours as it is, another one's first line after its type.

    One without a text, as an assertion's often is, is said with the line that raised it.
    """
    if isinstance(error, LoraperfError):
        return str(error)
    name, text = type(error).__name__, str(error).strip()
    return f"{name}: {text.splitlines()[0]}" if text else name + place_of(error)


def place_of(error: BaseException, *, but: str = "") -> str:
    """Return the file and line that raised an error, in parentheses; nothing for one of the file ``but``."""
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    return "".join(f" ({Path(last.filename).name}:{last.lineno})" for last in frames if last.filename != but)


def out_of_memory(error: BaseException | None) -> str | None:
    """Return what an error says of memory that ran out, the GPU's or the host's; None for another error."""
    torch = sys.modules.get("torch")  # where it was never imported, it raised nothing
    if not isinstance(error, (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError))):
        return None
    sentences = (str(error).strip().splitlines() or [""])[0].split(". ")
    return ". ".join(sentences[:2]).rstrip(".") or type(error).__name__


def clear_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold: pytest keeps errors, and a half-built pipeline is tens of GB."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            frame.f_locals  # noqa: B018 - whoever read them left a copy, which Python before 3.13 renews only here
        error = error.__cause__ or error.__context__


class UnitError(LoraperfError, ValueError):
    """A size, duration or ratio was not understood."""


class AdapterError(LoraperfError):
    """A LoRA file cannot be read, or fits nothing in the model."""


class ModelError(LoraperfError):
    """A model cannot be named, found or built."""


class StrategyError(LoraperfError):
    """A strategy is unknown, ill formed, or one of its steps had no effect."""


class ClockError(LoraperfError):
    """A clock went back or stood still, so that no time can be told."""


class DeviceError(LoraperfError):
    """The requested device cannot be used."""
