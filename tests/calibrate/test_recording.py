"""Recordings: their files, a clear word on every file that is none, and how they are taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.calibrate.recorder import Slowed, record
from pytest_loraperf.calibrate.recording import AGAIN, Recording, label, read_recording, write_recording
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.rounds import Workload
from pytest_loraperf.measure.timing import Stopwatch, Tick

SLOWDOWNS = (0.02, 0.05, 0.10, 0.20)

SHORT = Recording(
    what="a call",
    machine="a card",
    torch="2.9.0",
    model="synthetic:tiny",
    request={"steps": 4},
    strategy="fused",
    arms={"+0%": (1.0, 2.0), "+0% again": (1.0, 2.0), "+5%": (1.05, 2.1)},
    order=(("+0%", "+0% again", "+5%"), ("+5%", "+0%", "+0% again")),
)
LABELS = ["+0%", "+0% again", "+2%", "+5%", "+10%", "+20%"]


def test_label_is_the_share() -> None:
    assert [label(share) for share in (0, 0.02, 0.1, 0.025)] == ["+0%", "+2%", "+10%", "+2.5%"]


def test_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "recording.json"
    write_recording(path, SHORT)
    assert read_recording(path) == SHORT
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["schema"], data["kind"], data["arms"]["+5%"]) == (1, "recording", [1.05, 2.1])
    assert [each.name for each in path.parent.iterdir()] == ["recording.json"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file" / "recording.json"
    path.parent.write_text("no folder", encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        write_recording(path, SHORT)
    assert str(caught.value) == (
        f"recording {path}: cannot be written: File exists; name a file in a folder that can be written"
    )


def changed(path: Path, **changes: Any) -> Path:
    write_recording(path, SHORT)
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema": 2},
            "schema is 2, this version reads 1; make it again with this version of loraperf calibrate",
        ),
        (
            {"schema": True},
            "schema is true, this version reads 1; make it again with this version of loraperf calibrate",
        ),
        (
            {"kind": "calibration"},
            'kind is "calibration", this version reads "recording"; '
            "make it again with this version of loraperf calibrate",
        ),
        ({"arms": {"+0%": [1.0]}}, "arm '+0% again' has no rounds; record it again"),
        (
            {"arms": {"+0%": [1.0], "+0% again": [1.0, 2.0]}},
            "arm '+0% again' has 2 rounds, '+0%' has 1; record it again",
        ),
        (
            {"arms": {"+0%": [0.0], "+0% again": [1.0]}},
            "arm '+0%' holds 0.0, no positive number of seconds; record it again",
        ),
        (
            {"arms": {"+0%": [None], "+0% again": [1.0]}},
            "recording.arms['+0%'][0] is null, a finite number is expected; measure again to write it anew",
        ),
        ({"order": [["+0%"], ["+0%"]]}, "order does not name each arm once in each round; record it again"),
        ({"order": []}, "order does not name each arm once in each round; record it again"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = changed(tmp_path / "r.json", **changes)
    with pytest.raises(LoraperfError) as caught:
        read_recording(path)
    assert str(caught.value) == f"recording {path}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "recording is [], an object is expected; measure again to write it anew"),
        (
            '{"schema": 1',
            "no JSON, or truncated (Expecting ',' delimiter: line 1 column 13 (char 12)); make it again",
        ),
        ('{"schema": NaN}', "no JSON, or truncated (NaN is no JSON number); make it again"),
    ],
)
def test_a_file_that_is_no_recording(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        read_recording(path)
    assert str(caught.value) == f"recording {path}: {message}"


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LoraperfError) as caught:
        read_recording(tmp_path / "r.json")
    message = f"recording {tmp_path / 'r.json'}: cannot be read: No such file or directory; check the path"
    assert str(caught.value) == message


def test_a_time_that_is_no_number_is_never_written() -> None:
    with pytest.raises(LoraperfError) as caught:
        replace(SHORT, arms={**SHORT.arms, AGAIN: (1.0, float("nan"))})
    assert str(caught.value) == "arm '+0% again' holds nan, no positive number of seconds; record it again"


class Machine:
    """A clock that moves a little when it is read, a device that works until it is waited for, and a workload."""

    name = key = "generation"

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now = self.pending = 0.0
        self.calls = 0
        self.seconds = seconds
        self.watch = Stopwatch(self.read, self.wait)

    def read(self) -> float:
        self.now += 1e-4
        return self.now

    def wait(self) -> None:
        self.now += self.pending
        self.pending = 0.0

    def prepare(self) -> float | None:
        return 1.0

    def call(self, tick: Tick) -> object:
        tick()
        self.calls += 1
        self.pending = self.seconds(self.calls)
        return "an image"

    def refresh(self) -> object:
        return self.call(lambda: None)

    def fits_with(self, others: Sequence[Workload]) -> bool:
        return not others


def test_slowed_by_the_share_of_each_call() -> None:
    machine = Machine(float)
    slow = Slowed("+10%", machine, 0.10, machine.watch)
    taken = [machine.watch.time(lambda: slow.call(lambda: None)) for _ in range(3)]
    assert taken == pytest.approx([1.1, 2.2, 3.3], rel=0.003)


def test_slowed_by_nothing_is_the_workload_as_it_is() -> None:
    machine = Machine(lambda _: 1.0)
    same = Slowed("+0%", machine, 0.0, machine.watch)
    assert (same.call(lambda: None), machine.pending, machine.now) == ("an image", 1.0, 0.0)
    assert (same.key, same.prepare(), same.fits_with(()), same.fits_with((same,))) == ("+0%", 1.0, True, False)


def test_rounds_of_every_arm_in_random_order() -> None:
    machine = Machine(lambda _: 1.0)
    told: list[str] = []
    arms, order = record(machine, SLOWDOWNS, 20, machine.watch, told.append)
    assert list(arms) == LABELS
    for share, times in zip((0, 0, 0.02, 0.05, 0.10, 0.20), arms.values(), strict=True):
        assert times == pytest.approx([1 + share] * 20, rel=0.002)
    assert len(order) == 20
    assert all(sorted(turns) == sorted(LABELS) for turns in order)
    assert len(set(order)) > 10
    assert told[0] == f"{order[0][0]}: round 1 of 20"
    assert len(told) == 120


def test_equal_seeds_give_equal_orders() -> None:
    orders = [
        record((m := Machine(lambda _: 1.0)), SLOWDOWNS, 5, m.watch, lambda _: None, seed)[1] for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_the_error_of_the_workload_passes_through() -> None:
    def fail(call: int) -> float:
        if call > 30:
            raise RuntimeError("out of paper")
        return 1.0

    machine = Machine(fail)
    with pytest.raises(RuntimeError, match="out of paper"):
        record(machine, SLOWDOWNS, 20, machine.watch, lambda _: None)
