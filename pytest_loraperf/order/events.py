"""What is done to a model, one event an operation: the recorder sees them happen, the linter reads them.

They are tuples: the recorder makes and hashes some with every call, and a frozen dataclass takes several times as
long.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The operations whose order matters: those of a strategy's steps, what undoes them, and loading."""

    ATTACH = "attach"
    FUSE = "fuse"
    QUANTIZE = "quantize"
    OFFLOAD = "offload"
    COMPILE = "compile"
    UNFUSE = "unfuse"
    DETACH = "detach"
    HOTSWAP = "hotswap"
    DEQUANTIZE = "dequantize"
    ONLOAD = "onload"
    SELECT = "select"
    LOAD = "load"


class Place(NamedTuple):
    """A place in a source: the file, its line (from 1) and column (from 0)."""

    path: str
    line: int
    col: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Event(NamedTuple):
    """One operation on one model.

    ``call`` is what was called, as a reader knows it (``pipe.load_lora``); ``where`` the line of the operation
    itself, ``via`` the line that called the helper it stands in. ``adapter`` tells adapters apart where they are
    known. ``quantizes`` marks a load that quantizes; ``needs_fp8`` a quantization that does nothing unless the
    weights were loaded as fp8 (DiffSynth 1.1); ``filtered`` one that leaves the adapters out;
    ``every`` a fuse of all adapters that are active, none of them named. ``layers`` of
    ``total`` were changed, where that could be counted: at run time only. ``source`` is what an adapter that is
    attached was read from, which a name given to several of them does not tell.
    """

    kind: Kind
    call: str
    where: Place
    via: Place | None = None
    adapter: str | None = None
    quantizes: bool = False
    needs_fp8: bool = False
    filtered: bool = False
    every: bool = False
    layers: int | None = None
    total: int | None = None
    source: str | None = None
