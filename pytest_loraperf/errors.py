"""The errors that a user sees: each is one clear line that says what was found and what to do."""

from __future__ import annotations

import sys
import traceback


class LoraperfError(Exception):
    """What the user gave cannot be used; the message is one line, shown without a traceback."""


def said(error: BaseException) -> str:
    """Return what an error says in one line: ours as it is, another one's first line after its type."""
    if isinstance(error, LoraperfError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


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
