from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.gpu.nvml import THROTTLE_REASONS, Reading
from pytest_loraperf.measure.validity import (
    AGAINST_THROTTLING,
    Round,
    findings,
    keep_rounds,
    throttled,
    unexplained_bytes,
)

GB = 2**30
QUIET = Reading(1980, frozenset(), 60, 20 * GB)


def at(mhz: int | None, *reasons: str, celsius: int = 60) -> Reading:
    return Reading(mhz, frozenset(reasons), celsius, 20 * GB)


def rounds_of(*readings: Reading | None) -> list[Round]:
    return [{"fused": reading} for reading in readings]


CAPPED = at(1980, "power cap")
SLOWED = at(1980, "power brake")


@pytest.mark.parametrize(
    ("reading", "is_throttled"),
    [(None, False), (Reading(), False), (QUIET, False), (CAPPED, False), (SLOWED, True)],
)
def test_what_is_not_known_is_no_throttling(reading: Reading | None, is_throttled: bool) -> None:
    assert throttled(reading) is is_throttled


def test_every_throttle_reason_has_its_advice() -> None:
    assert set(AGAINST_THROTTLING) == set(THROTTLE_REASONS.values())


@pytest.mark.parametrize(
    ("slowed", "kept"),
    [
        ("", []),
        ("-", [0]),
        ("----", [0, 1, 2, 3]),
        ("-T--", [0, 2, 3]),
        ("-TT-", [0, 3]),
        ("-TTT-", [0, 1, 2, 3, 4]),  # fewer than half are left
        ("T-", [0, 1]),  # fewer than two are left
        ("TTTT", [0, 1, 2, 3]),
    ],
)
def test_throttled_rounds_are_dropped_but_enough_stay(slowed: str, kept: list[int]) -> None:
    assert keep_rounds(rounds_of(*(SLOWED if each == "T" else QUIET for each in slowed))) == kept


def test_one_throttled_arm_drops_its_round_whole() -> None:
    mixed: Round = {"fused": QUIET, "standard_lora": SLOWED}
    quiet: Round = {"fused": QUIET, "standard_lora": None}
    assert keep_rounds([quiet, mixed, quiet]) == [0, 2]


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, QUIET, SLOWED]))))
def test_never_is_nothing_left(rounds: list[Round]) -> None:
    kept = keep_rounds(rounds)
    assert 2 * len(kept) >= len(rounds)
    assert len(kept) >= min(2, len(rounds))
    assert kept == sorted(set(kept))


def test_a_quiet_measurement_has_no_findings() -> None:
    assert findings(rounds_of(*[QUIET] * 9), unexplained=GB, slowdown_c=90) == []


def test_nothing_measured_has_no_findings() -> None:
    assert findings([]) == []
    assert findings([{}, {}]) == []


def test_no_nvml_is_said_once() -> None:
    assert findings(rounds_of(None, None, None)) == [
        (
            "NVML is not available: throttling, clocks, heat and neighbours were not watched; install the driver's "
            "libnvidia-ml.so, or show it to the container (NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        )
    ]
    assert findings(rounds_of(None, QUIET, None)) == []


def test_what_the_driver_does_not_tell_is_said() -> None:
    assert findings(rounds_of(Reading(temperature_c=60, used_bytes=GB), None)) == [
        (
            "the driver does not tell throttling, the SM clock of this GPU: not watched; "
            "measure on a whole GPU (MIG instances and virtual GPUs tell less)"
        )
    ]
    assert findings(rounds_of(QUIET, None)) == []
    (found,) = findings(rounds_of(Reading(1980, frozenset())))
    assert found.startswith("the driver does not tell the temperature, memory in use of this GPU: ")


def test_a_driver_that_is_gone_is_said() -> None:
    assert findings(rounds_of(QUIET, None, QUIET, None, None)) == [
        (
            "NVML said nothing in the last 2 of 5 rounds of fused: throttling, clocks, heat and neighbours were not "
            "watched there; look whether the GPU or its driver fell out (dmesg, nvidia-smi)"
        )
    ]


def test_neighbours() -> None:
    assert findings(rounds_of(QUIET), unexplained=12 * GB) == [
        (
            "12 GB of the GPU's memory are not this process's: other processes use the GPU and disturb what is "
            "timed; stop them (nvidia-smi on the host lists them) or measure on another GPU "
            "(CUDA_VISIBLE_DEVICES names it)"
        )
    ]
    assert findings(rounds_of(QUIET), unexplained=GB) == []
    assert findings(rounds_of(QUIET), unexplained=None) == []


@pytest.mark.parametrize(
    ("used", "held", "reserved", "unexplained"),
    [
        (20, 19, 18, 1),  # the driver tells what this process holds
        (20, None, 18, 1),  # it does not: a context and its libraries take up to 1 GB
        (18, None, 18, 0),
        (30, None, 18, 11),
    ],
)
def test_unexplained_bytes(used: int, held: int | None, reserved: int, unexplained: int) -> None:
    assert unexplained_bytes(used * GB, held and held * GB, reserved * GB) == unexplained * GB


@pytest.mark.parametrize(
    ("slowed", "message"),
    [
        (
            [SLOWED, SLOWED, SLOWED],
            "3 of 12 rounds of fused were dropped: throttled (power brake); check the machine's power supply",
        ),
        (
            [at(1980, "power brake")],
            "1 of 12 rounds of fused was dropped: throttled (power brake); check the machine's power supply",
        ),
        (
            [at(1980, "thermal slowdown", "hardware slowdown")],
            "1 of 12 rounds of fused was dropped: throttled (hardware slowdown, thermal slowdown); "
            "check the cooling and the power supply (nvidia-smi -q -d PERFORMANCE); "
            "improve its cooling, or let it cool down first",
        ),
        (
            [SLOWED] * 12,
            "12 of 12 rounds of fused ran throttled (power brake) and still count, since too few ran without; "
            "check the machine's power supply",
        ),
        (
            [SLOWED] * 7,
            "7 of 12 rounds of fused ran throttled (power brake) and still count, since too few ran without; "
            "check the machine's power supply",
        ),
    ],
)
def test_throttled_rounds_are_counted(slowed: list[Reading], message: str) -> None:
    rounds = rounds_of(*slowed, *[QUIET] * (12 - len(slowed)))
    assert findings(rounds) == [message]


def test_rounds_at_the_power_cap_count_and_are_told() -> None:
    rounds = [{"fused": CAPPED, "old": QUIET}] * 7 + [{"fused": QUIET, "old": QUIET}]
    assert keep_rounds(rounds) == list(range(8))
    assert findings(rounds) == [
        (
            "7 of 8 rounds of fused and old ran at the GPU's power cap, where its clock moves with the load; "
            "lock the SM clock where the power suffices (nvidia-smi -lgc MHZ, as root)"
        )
    ]


@pytest.mark.parametrize(
    ("clocks", "message"),
    [
        (
            [1980, 1980, 1980, 1900, 1870, 1860],
            "the SM clock fell by 5.8% over the rounds (1980 to 1865 MHz); "
            "lock it (nvidia-smi -lgc MHZ, as root), or warm up for longer",
        ),
        (
            [1500, 1700, 1980],
            "the SM clock rose by 32.0% over the rounds (1500 to 1980 MHz); "
            "lock it (nvidia-smi -lgc MHZ, as root), or warm up for longer",
        ),
    ],
)
def test_clock_drift(clocks: list[int], message: str) -> None:
    assert findings(rounds_of(*map(at, clocks))) == [message]


@pytest.mark.parametrize(
    "clocks",
    [
        [1980, 1500],  # two rounds have no thirds
        [1980, 1980, 1940],  # 2 %
        [1980, 1980, 1500, 1980, 1980, 1980],  # one low round is no drift
        [1980, None, None],
    ],
)
def test_no_clock_drift(clocks: list[int | None]) -> None:
    assert findings(rounds_of(*map(at, clocks))) == []


def test_dropped_rounds_are_no_drift() -> None:
    rounds = rounds_of(at(1980), at(1980), at(1980), at(1980), at(1200, "power brake"), at(1200, "power brake"))
    (found,) = findings(rounds)
    assert found.startswith("2 of 6 rounds of fused were dropped: throttled (power brake)")


def test_clocks_that_differ_between_arms() -> None:
    rounds: list[Round] = [{"fused": at(1980), "no_lora": at(1950), "standard_lora": at(1900)}] * 3
    assert findings(rounds) == [
        (
            "the SM clock was 1900 MHz under standard_lora and 1980 MHz under fused, 4.2% apart: as much of the "
            "difference in time may be the clock's; lock it (nvidia-smi -lgc MHZ, as root)"
        )
    ]


def test_clocks_that_hardly_differ_between_arms() -> None:
    rounds: list[Round] = [
        {"fused": at(1980), "standard_lora": at(1950)},
        {"fused": at(1980), "standard_lora": None},
        {"fused": at(None), "standard_lora": at(1950)},
    ]
    assert findings(rounds) == []


@pytest.mark.parametrize("celsius", [85, 91])
def test_heat(celsius: int) -> None:
    assert findings(rounds_of(at(1980), at(1980, celsius=celsius)), slowdown_c=90) == [
        (
            f"the GPU reached {celsius} °C and slows itself down at 90 °C; "
            "improve its cooling, or let it cool down first"
        )
    ]


@pytest.mark.parametrize("slowdown_c", [90, None])
def test_no_heat(slowdown_c: int | None) -> None:
    assert findings(rounds_of(at(1980, celsius=84)), slowdown_c=slowdown_c) == []
