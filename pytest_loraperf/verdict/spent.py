"""What a phase over its budget spent its memory on, and so what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_loraperf.units import format_size

SHOWN = 5
"""Parts of a model that are shown, the largest first."""
NARROW = ("float8", "int8", "uint8", "int4", "uint4")
"""How types of quantized weights begin."""


@dataclass(frozen=True)
class Spent:
    """Bytes at the peak of a phase.

    ``live`` are tensors, ``unused`` what the allocator had reserved beyond them (its fragmentation), ``outside``
    what is not torch's: the context and libraries. ``weights`` are those on the device by part of the model, and
    ``call`` the module in whose call most was live, with what was live beyond the start of the generation.
    """

    live: int
    unused: int = 0
    outside: int = 0
    weights: Sequence[tuple[str, int]] = ()
    call: tuple[str, int] | None = None

    def lines(self) -> Iterator[str]:
        """Yield a line for each part, the weights first, and what to change about the largest."""
        known = sorted(self.weights, key=lambda pair: -pair[1])
        parts = [(f"weights of {name}", size) for name, size in known[:SHOWN]]
        parts.append(("weights of other parts", sum(size for _, size in known[SHOWN:])))
        if self.call is not None:
            parts.append((f"made by the generation, most of it live in {self.call[0]}", self.call[1]))
        told = sum(size for _, size in parts)
        parts.append(("other live tensors" if told else "live tensors", self.live - told))
        parts.append(("reserved, not in use (fragmentation)", self.unused))
        parts.append(("CUDA context and libraries", self.outside))
        yield from (f"{format_size(size):>10}  {what}" for what, size in parts if size > 0)
        advice = self.advice()
        if advice:
            yield advice

    def advice(self) -> str:
        """Say what to change about the largest part; nothing where the parts of what is live are not known."""
        weights = sum(size for _, size in self.weights)
        made = self.call[1] if self.call is not None else 0
        largest = max(weights, made, self.unused, self.outside)
        if not (self.weights or self.call):
            return ""
        if largest == weights:
            name, _ = max(self.weights, key=lambda pair: pair[1])
            how = "offload" if _is_narrow(name) else "quantize or offload"
            return f"largest: the weights of {name}; {how} them"
        if largest == made:
            return "largest: what the generation makes; fewer pixels, or cfg 1, make it smaller"
        if largest == self.outside:
            return "largest: the CUDA context and libraries, which no strategy makes smaller; raise the budget"
        return (
            "largest: what the allocator holds and nothing uses; "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True makes it smaller"
        )


def _is_narrow(name: str) -> bool:
    return name.rpartition("(")[2].startswith(NARROW)
