"""The command: what it measures, reads, shows and writes, and what it refuses before it measures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pytest_loraperf.calibrate.run as command
from pytest_loraperf.calibrate.calibration import Calibration, read_calibration
from pytest_loraperf.calibrate.noise import KINDS
from pytest_loraperf.calibrate.recording import Recording, read_recording, write_recording
from pytest_loraperf.calibrate.replay import LIMITS, SLOWDOWNS
from pytest_loraperf.calibrate.run import Calibrating, measure, run_calibration
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.options import Settings

TINY = Settings(model="synthetic:tiny", device="cpu")
ROUNDS = 12
STILL = Recording(
    what="a call",
    machine="a card",
    torch="2.9.0",
    model="synthetic:tiny",
    request={"height": 64, "width": 32, "steps": 4},
    strategy="fused",
    arms={name: (1.0 + share,) * ROUNDS for name, share in (("+0%", 0), ("+0% again", 0), ("+20%", 0.2))},
    order=(("+0%", "+0% again", "+20%"),) * ROUNDS,
)


def run(asked: Calibrating) -> tuple[Calibration, list[str], list[str]]:
    told: list[str] = []
    shown: list[str] = []
    found = run_calibration(TINY, "loraperf calibrate", asked, {}, told.append, shown.append)
    return found, told, shown


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.json"
    write_recording(path, STILL)
    return path


def test_a_recording_is_replayed_beside_all_kinds_of_noise(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "calibration.json"
    found, told, shown = run(Calibrating(replay=recording, max_rounds=9, replays=2, json=out))
    names = dict.fromkeys(tally.source for tally in found.tallies)
    assert list(names) == [*KINDS, "recorded"]
    assert len(found.tallies) == 6 * len(SLOWDOWNS) * len(LIMITS)
    last = found.tallies[-1]
    assert (last.source, last.slowdown, last.limit, last.power, last.rounds) == ("recorded", 0.2, 0.05, 1.0, 9)
    where = (
        "recorded: 12 rounds of fused on a card, torch 2.9.0, synthetic:tiny, 32×64, 4 steps; "
        "arms +0%, +0% again (1.000×), +20% (1.200×); the others, and any at or within a limit, are equal arms, scaled"
    )
    assert where in shown
    assert told[-1] == ""
    assert read_calibration(out) == found


@pytest.mark.parametrize("request_", [{}, {"steps": 4}, {"width": 8, "steps": 4}])
def test_a_recording_of_another_kind_of_request(tmp_path: Path, request_: dict[str, Any]) -> None:
    path = tmp_path / "recording.json"
    write_recording(path, replace(STILL, request=request_))
    _, _, shown = run(Calibrating(replay=path, max_rounds=9, replays=1))
    assert any("synthetic:tiny, a request; arms +0%" in line for line in shown)


def test_simulated_noise_alone() -> None:
    found, told, _ = run(Calibrating(simulated_only=True, max_rounds=9, replays=1))
    assert list(dict.fromkeys(tally.source for tally in found.tallies)) == list(KINDS)
    assert found.recorded is None
    assert told[0] == "Gaussian noise: +0% against a limit of +2%"


def test_what_was_measured_is_replayed_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "recording.json"
    seen: list[Any] = []

    def measured(*arguments: Any) -> Recording:
        seen.append(arguments)
        return STILL

    monkeypatch.setattr(command, "measure", measured)
    asked = Calibrating(record=out, rounds=9, max_rounds=9, replays=1)
    found, _, _ = run(asked)
    assert found.tallies[-1].source == "recorded"
    assert read_recording(out) == STILL
    assert [each[:3] for each in seen] == [(TINY, asked, {})]


def test_this_machine_is_measured() -> None:
    told: list[str] = []
    asked = Calibrating(strategy="fused", rounds=3, max_rounds=3)
    found = measure(TINY, asked, {"steps": 2}, told.append)
    assert (found.machine, found.model, found.strategy, found.rounds) == ("CPU", "synthetic:tiny", "fused", 3)
    assert (found.request["steps"], found.request["height"]) == (2, 64)
    assert list(found.arms) == ["+0%", "+0% again", "+2%", "+5%", "+10%", "+20%"]
    assert "fused: fuse" in told


def test_replaying_imports_no_torch(recording: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from pytest_loraperf.calibrate.run import Calibrating, run_calibration
from pytest_loraperf.options import Settings
asked = Calibrating(replay=Path({str(recording)!r}), max_rounds=9, replays=1)
run_calibration(Settings(), "", asked, {{}}, lambda line: None, lambda line: None)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FILE = Path("r.json")
NOWHERE = Path("/proc/nowhere/out.json")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rounds": 0}, "--rounds 0: a positive whole number is allowed"),
        ({"max_rounds": -1}, "--max-rounds -1: a positive whole number is allowed"),
        ({"replays": 0}, "--replays 0: a positive whole number is allowed"),
        (
            {"rounds": 29},
            "--rounds 29: a verdict of --max-rounds 30 needs as many; record at least 30",
        ),
        (
            {"simulated_only": True, "record": FILE},
            "--simulated-only and --record: nothing is recorded or replayed; leave out one",
        ),
        (
            {"simulated_only": True, "replay": FILE},
            "--simulated-only and --replay: nothing is recorded or replayed; leave out one",
        ),
        (
            {"replay": FILE, "record": FILE},
            "--record and --replay: a recording is made or used; leave out one",
        ),
    ],
)
def test_what_is_asked_for_must_fit(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(LoraperfError) as caught:
        Calibrating(**asked)
    assert str(caught.value) == message


def test_a_recording_too_short_for_a_verdict(recording: Path) -> None:
    with pytest.raises(LoraperfError) as caught:
        run(Calibrating(replay=recording))
    assert str(caught.value) == (
        f"recording {recording}: 12 rounds, but a verdict takes up to 30; record more, or use --max-rounds=12"
    )


@pytest.mark.parametrize(
    ("asked", "flag"),
    [(Calibrating(record=NOWHERE), "--record"), (Calibrating(json=NOWHERE), "--json")],
    ids=["record", "json"],
)
def test_a_file_that_cannot_be_written_is_refused_first(
    asked: Calibrating, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(LoraperfError) as caught:
        run(asked)
    assert str(caught.value) == f"{flag}=/proc/nowhere/out.json: cannot be written: No such file or directory"


def test_an_unknown_strategy_is_refused_before_anything_is_built() -> None:
    with pytest.raises(LoraperfError) as caught:
        run(Calibrating(strategy="fuzed"))
    assert str(caught.value).startswith(
        "unknown strategy 'fuzed'; did you mean fused? The strategies are standard_lora, "
    )
