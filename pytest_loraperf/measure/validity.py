"""Whether a measurement can be trusted, apart from its verdict: what the GPU did meanwhile, which rounds count.

Readings are taken after each sample: a round maps each arm to its reading, None where NVML said nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from statistics import median
from typing import TYPE_CHECKING

from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pytest_loraperf.gpu.nvml import Reading

Round = Mapping[str, "Reading | None"]

MIN_KEPT = 2
GONE = 2
"""Rounds without a reading at the end, after which a driver that had told is taken to be gone."""
NEIGHBOUR_TOLERANCE = 2**30
"""Bytes that may be in use on a GPU of one's own: an old driver counts the hundreds of MB that it keeps itself."""
CONTEXT_ALLOWANCE = 2**30
"""Bytes that a CUDA context with its libraries takes at most, where the driver does not tell what it took."""
MAX_DRIFT = 0.03
MAX_ARM_DIFFERENCE = 0.02
HEAT_MARGIN = 5
"""Degrees Celsius."""

STOP_NEIGHBOURS = (
    "stop them (nvidia-smi on the host lists them) or measure on another GPU (CUDA_VISIBLE_DEVICES names it)"
)
LOCK_CLOCK = "lock it (nvidia-smi -lgc MHZ, as root)"
SHOW_NVML = (
    "install the driver's libnvidia-ml.so, or show it to the container "
    "(NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
)
TELLS_LESS = "measure on a whole GPU (MIG instances and virtual GPUs tell less)"
COOL = "improve its cooling, or let it cool down first"
POWER_CAP = "power cap"
"""The state of a GPU at full load: an H100 was in it in 67 of 71 rounds of a bf16 DiT. To drop these would be
to choose rounds by the load of the arms; they count, and it is told."""
AGAINST_THROTTLING = {
    "hardware slowdown": "check the cooling and the power supply (nvidia-smi -q -d PERFORMANCE)",
    "power brake": "check the machine's power supply",
    POWER_CAP: "lock the SM clock where the power suffices (nvidia-smi -lgc MHZ, as root)",
    "thermal slowdown": COOL,
}


def throttled(reading: Reading | None) -> bool:
    """Whether something but its power cap slowed the GPU down; what is not known is not held against a round."""
    return bool(_reasons(reading) - {POWER_CAP})


def keep_rounds(rounds: Sequence[Round]) -> list[int]:
    """Return the indices of the rounds that count: those without throttling.

    A round is kept or dropped whole, so that arms stay paired. All are kept where fewer than half, or fewer than
    two, ran without throttling.
    """
    free = [index for index, each in enumerate(rounds) if not any(map(throttled, each.values()))]
    enough = len(free) >= MIN_KEPT and 2 * len(free) >= len(rounds)
    return free if enough else list(range(len(rounds)))


def unexplained_bytes(used: int, held: int | None, reserved: int) -> int:
    """Return the bytes in use on the whole device that are not this process's.

    ``held`` is what the driver says this process holds. In containers it is None, for there the driver's process
    numbers are the host's; then this process is taken to hold what torch ``reserved`` and ``CONTEXT_ALLOWANCE``,
    and a neighbour smaller than that allowance may stay unseen, but none is made up.
    """
    return max(0, used - (reserved + CONTEXT_ALLOWANCE if held is None else held))


def findings(
    rounds: Sequence[Round], *, unexplained: int | None = None, slowdown_c: int | None = None
) -> list[str]:
    """Return what makes these rounds doubtful, a line each.

    ``unexplained`` are bytes as ``unexplained_bytes`` returns them, the most that was seen; ``slowdown_c`` is the
    temperature in °C at which the GPU slows itself down. None: not known.
    """
    readings = [reading for each in rounds for reading in each.values() if reading is not None]
    kept = [rounds[index] for index in keep_rounds(rounds)]
    return [
        *_unknown(rounds, readings),
        *_neighbours(unexplained or 0),
        *_throttling(rounds, len(kept)),
        *_power_cap(rounds),
        *_drift(kept),
        *_arms(kept),
        *_heat(readings, slowdown_c),
    ]


def _unknown(rounds: Sequence[Round], readings: Sequence[Reading]) -> Iterator[str]:
    if not any(rounds):
        return
    if not readings:
        yield f"NVML is not available: throttling, clocks, heat and neighbours were not watched; {SHOW_NVML}"
        return
    silent = list(takewhile(lambda each: not any(each.values()), reversed(rounds)))
    if len(silent) >= GONE:
        yield (
            f"NVML said nothing in the last {_share(silent, rounds)}: throttling, clocks, heat and neighbours were"
            " not watched there; look whether the GPU or its driver fell out (dmesg, nvidia-smi)"
        )
    told = {
        "throttling": any(each.throttle is not None for each in readings),
        "the SM clock": any(each.sm_clock_mhz is not None for each in readings),
        "the temperature": any(each.temperature_c is not None for each in readings),
        "memory in use": any(each.used_bytes is not None for each in readings),
    }
    missing = [name for name, known in told.items() if not known]
    if missing:
        yield f"the driver does not tell {', '.join(missing)} of this GPU: not watched; {TELLS_LESS}"


def _neighbours(unexplained: int) -> Iterator[str]:
    if unexplained > NEIGHBOUR_TOLERANCE:
        yield (
            f"{format_size(unexplained)} of the GPU's memory are not this process's: other processes use the GPU "
            f"and disturb what is timed; {STOP_NEIGHBOURS}"
        )


def _throttling(rounds: Sequence[Round], kept: int) -> Iterator[str]:
    slowed = [each for each in rounds if any(map(throttled, each.values()))]
    if not slowed:
        return
    found = {reason for each in slowed for reading in each.values() for reason in _reasons(reading)}
    reasons = sorted(found - {POWER_CAP})
    share = _share(slowed, rounds)
    advice = "; ".join(AGAINST_THROTTLING[reason] for reason in reasons)
    why = f"throttled ({', '.join(reasons)})"
    if kept < len(rounds):
        were = "was" if len(slowed) == 1 else "were"
        yield f"{share} {were} dropped: {why}; {advice}"
    else:
        yield f"{share} ran {why} and still count, since too few ran without; {advice}"


def _power_cap(rounds: Sequence[Round]) -> Iterator[str]:
    capped = [each for each in rounds if any(POWER_CAP in _reasons(reading) for reading in each.values())]
    if capped:
        yield (
            f"{_share(capped, rounds)} ran at the GPU's power cap, where its clock moves with the load; "
            f"{AGAINST_THROTTLING[POWER_CAP]}"
        )


def _share(some: Sequence[Round], rounds: Sequence[Round]) -> str:
    arms = dict.fromkeys(arm for each in rounds for arm in each)
    return f"{len(some)} of {len(rounds)} rounds of {' and '.join(arms)}"


def _reasons(reading: Reading | None) -> frozenset[str]:
    return (reading.throttle if reading else None) or frozenset()


def _drift(rounds: Sequence[Round]) -> Iterator[str]:
    clocks = [median(found) for each in rounds if (found := _clocks(each))]
    third = len(clocks) // 3
    if not third:
        return
    first, last = median(clocks[:third]), median(clocks[-third:])
    change = last / first - 1 if first else 0.0
    if abs(change) > MAX_DRIFT:
        direction = "fell" if change < 0 else "rose"
        yield (
            f"the SM clock {direction} by {abs(change):.1%} over the rounds ({first:.0f} to {last:.0f} MHz); "
            f"{LOCK_CLOCK}, or warm up for longer"
        )


def _arms(rounds: Sequence[Round]) -> Iterator[str]:
    by_arm: dict[str, list[int]] = {}
    for each in rounds:
        for arm, reading in each.items():
            if reading is not None and reading.sm_clock_mhz:
                by_arm.setdefault(arm, []).append(reading.sm_clock_mhz)
    medians = {arm: median(clocks) for arm, clocks in by_arm.items()}
    if not medians:
        return
    slow, fast = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    apart = medians[fast] / medians[slow] - 1
    if apart > MAX_ARM_DIFFERENCE:
        yield (
            f"the SM clock was {medians[slow]:.0f} MHz under {slow} and {medians[fast]:.0f} MHz under {fast}, "
            f"{apart:.1%} apart: as much of the difference in time may be the clock's; {LOCK_CLOCK}"
        )


def _clocks(each: Round) -> list[int]:
    return [reading.sm_clock_mhz for reading in each.values() if reading is not None and reading.sm_clock_mhz]


def _heat(readings: Sequence[Reading], slowdown_c: int | None) -> Iterator[str]:
    hottest = max((each.temperature_c for each in readings if each.temperature_c is not None), default=None)
    if hottest is None or slowdown_c is None or hottest < slowdown_c - HEAT_MARGIN:
        return
    yield f"the GPU reached {hottest} °C and slows itself down at {slowdown_c} °C; {COOL}"
