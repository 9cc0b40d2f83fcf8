"""The hardware's limit: the least time that a generation can take by what it has to compute and to move.

Pure arithmetic, after the roofline model (Williams, Waterman and Patterson, 2009): no kernel is faster than its
operations at the rate of the arithmetic units, nor than its bytes at the bandwidth of the memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_loraperf.units import format_size

OPERATIONS, MEMORY, BUS = "operations", "memory", "bus"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What this machine was measured to do in a second.

    ``operations`` are floating-point operations a second of a large matrix product, by dtype; ``bytes`` those
    that a copy within the device's memory reads and writes; ``bus_bytes`` those that come from pinned host memory,
    None where the device is the CPU or nothing can be pinned.
    """

    operations: Mapping[str, float]
    bytes: float
    bus_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one generation computes and moves at least.

    ``operations`` are floating-point operations of matrix products, convolutions and attention, by the dtype of
    the product; ``bytes`` those of the weights, each read from the device's memory once a step; ``bus_bytes``
    those copied from host memory to the device; ``not_counted`` names operations without a formula.
    """

    operations: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    bus_bytes: int = 0
    not_counted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The least seconds of a generation by the machine's ``rates``, and what it computes and moves at least.

    ``operations`` are floating-point operations of matrix products, convolutions and attention by dtype,
    ``bytes`` those of weights that are read once a step, ``bus_bytes`` those copied from host memory. ``seconds``
    are the longest of the three, and ``by`` says which: operations, memory or bus. ``not_counted`` names
    operations without a formula, and dtypes without a rate.
    """

    operations: Mapping[str, int]
    bytes: int
    bus_bytes: int
    seconds: float
    by: str
    not_counted: tuple[str, ...] = ()


def limit_of(counts: Counts, rates: Rates) -> Limit:
    """Return the limit of one generation; what has no rate takes no time, so that the limit stays one."""
    seconds = {
        OPERATIONS: sum(
            count / rates.operations[dtype]
            for dtype, count in counts.operations.items()
            if dtype in rates.operations
        ),
        MEMORY: counts.bytes / rates.bytes,
        BUS: counts.bus_bytes / rates.bus_bytes if rates.bus_bytes else 0.0,
    }
    longest = max(seconds, key=lambda name: seconds[name])
    lacking = [f"products in {dtype}" for dtype in counts.operations if dtype not in rates.operations]
    if counts.bus_bytes and not rates.bus_bytes:
        lacking.append("copies from host memory")
    return Limit(
        operations=counts.operations,
        bytes=counts.bytes,
        bus_bytes=counts.bus_bytes,
        seconds=seconds[longest],
        by=longest,
        not_counted=(*counts.not_counted, *lacking),
    )


def mean(counts: Sequence[Counts]) -> Counts:
    """Return the counts of one generation of several (at least one), rounded down."""
    operations: Counter[str] = Counter()
    for each in counts:
        operations.update(each.operations)
    number = len(counts)
    return Counts(
        operations={dtype: count // number for dtype, count in operations.items()},
        bytes=sum(each.bytes for each in counts) // number,
        bus_bytes=sum(each.bus_bytes for each in counts) // number,
        not_counted=tuple(dict.fromkeys(name for each in counts for name in each.not_counted)),
    )


def rates_shown(rates: Rates) -> Iterator[str]:
    """Yield each rate as a text: ``720 TFLOP/s in bfloat16``."""
    for dtype, rate in rates.operations.items():
        yield f"{_operations(rate)}/s in {dtype}"
    yield f"{format_size(round(rates.bytes))}/s of device memory"
    if rates.bus_bytes:
        yield f"{format_size(round(rates.bus_bytes))}/s from pinned host memory"


def _operations(count: float) -> str:
    """Show operations with three digits and their unit, powers of 1000 as in data sheets."""
    for prefix, scale in (("T", 1e12), ("G", 1e9)):
        if count >= scale * 0.9995:
            value = count / scale
            shown = f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"  # noqa: PLR2004 - three digits
            return f"{shown} {prefix}FLOP"
    return f"{count / 1e6:.3g} MFLOP"
