"""The errors that a user sees: each is one clear line that says what was found and what to do."""


class LoraperfError(Exception):
    """What the user gave cannot be used; the message is one line, shown without a traceback."""


def said(error: Exception) -> str:
    """Return what an error says in one line: ours as it is, another one's first line after its type."""
    if isinstance(error, LoraperfError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


class UnitError(LoraperfError, ValueError):
    """A size, duration or ratio was not understood."""


class AdapterError(LoraperfError):
    """A LoRA file cannot be read, or fits nothing in the model."""


class ModelError(LoraperfError):
    """A model cannot be named, found or built."""


class StrategyError(LoraperfError):
    """A strategy is unknown, ill formed, or one of its steps had no effect."""


class DeviceError(LoraperfError):
    """The requested device cannot be used."""
