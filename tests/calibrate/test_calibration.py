"""What a calibration says: its table, its Markdown, its file, and its findings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_loraperf.calibrate.calibration import Calibration, read_calibration, write_calibration
from pytest_loraperf.calibrate.replay import Tally
from pytest_loraperf.calibrate.table import lines, markdown_lines
from pytest_loraperf.errors import LoraperfError

GOOD = Tally("bursty", 0.0, 0.05, 1000, 600, 4, 396, 0.004, None, 14, 1.25)
SLOW = Tally("bursty", 0.2, 0.05, 1000, 0, 873, 127, None, 0.873, 21.5, 12345.6)
NEVER = Tally("recorded", 0.0, 0.05, 1000, 0, 0, 1000, 0.0, None, None, None)
NEVER_SLOW = Tally("recorded", 0.2, 0.05, 1000, 0, 0, 1000, None, 0.0, None, None)
CALIBRATION = Calibration(
    plugin_version="0.1.0",
    created="2026-01-01T00:00:00+00:00",
    command="loraperf calibrate",
    max_rounds=30,
    recorded="100 rounds of fused on a card",
    tallies=(GOOD, SLOW, NEVER, NEVER_SLOW),
)
NOTES = [
    "1000 replays a row and slowdown, of at most 30 rounds",
    "recorded: 100 rounds of fused on a card",
    "rounds, seconds (both arms): medians to a PASS or FAIL",
]


def test_the_table_for_a_terminal() -> None:
    assert list(lines(CALIBRATION)) == [
        "noise     limit  slower  false alarms   power  passed  cannot tell  rounds  seconds",
        "bursty      +5%     +0%         0.4 %       –  60.0 %       39.6 %      14    1.250",
        "bursty      +5%    +20%             –  87.3 %   0.0 %       12.7 %    21.5    12346",
        "recorded    +5%     +0%         0.0 %       –   0.0 %      100.0 %       –        –",
        "recorded    +5%    +20%             –   0.0 %   0.0 %      100.0 %       –        –",
        *NOTES,
        "false alarms: FAIL where it is slower by at most the limit; power: FAIL where it is slower by more",
    ]


def test_the_table_in_markdown() -> None:
    assert list(markdown_lines(CALIBRATION)) == [
        "| noise | limit | FAIL at +0% | FAIL at +20% | rounds (A/A) | seconds (A/A) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bursty | +5% | 0.4 % | 87.3 % | 14 | 1.250 |",
        "| recorded | +5% | 0.0 % | 0.0 % | – | – |",
        "",
        *(f"- {note}" for note in NOTES),
    ]


def test_simulated_noise_alone_names_no_recording() -> None:
    found = list(lines(replace(CALIBRATION, recorded=None)))
    assert [line for line in found if line.startswith("recorded:")] == []


def test_false_alarms_above_the_promise_are_a_finding() -> None:
    bad = replace(CALIBRATION, tallies=(replace(GOOD, failed=25, false_alarms=0.025),))
    assert list(bad.findings()) == [
        "bursty noise, +0% against a limit of +5%: 2.5 % of 1000 replays FAIL, wrongly; "
        "at most 1 % are promised: measure on a quieter machine"
    ]
    assert list(lines(bad))[-1] == next(bad.findings())


def test_wrong_passes_above_the_promise_are_a_finding() -> None:
    bad = replace(CALIBRATION, tallies=(replace(SLOW, passed=1000),))
    assert list(bad.findings()) == [
        "bursty noise, +20% against a limit of +5%: 100.0 % of 1000 replays PASS, wrongly; "
        "at most 1 % are promised: measure on a quieter machine"
    ]


@pytest.mark.parametrize(("failed", "replays", "findings"), [(19, 1000, 0), (20, 1000, 1), (1, 20, 0), (2, 20, 1)])
def test_what_chance_explains_is_no_finding(failed: int, replays: int, findings: int) -> None:
    # Three standard deviations of a share of 1 %: 0.94 % of 1000, 6.7 % of 20.
    tally = replace(GOOD, failed=failed, replays=replays)
    assert len(list(replace(CALIBRATION, tallies=(tally,)).findings())) == findings


def test_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, CALIBRATION)
    assert read_calibration(path) == CALIBRATION
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["schema"], data["kind"], data["tallies"][0]["false_alarms"]) == (1, "calibration", 0.004)


def test_a_recording_is_no_calibration(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    path.write_text('{"schema": 1, "kind": "recording"}', encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        read_calibration(path)
    assert str(caught.value) == (
        f'calibration {path}: kind is "recording", this version reads "calibration"; '
        "make it again with this version of loraperf calibrate"
    )
