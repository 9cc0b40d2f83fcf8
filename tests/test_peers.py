"""Peers' rules on recorded samples: each as its source has it, and one table with ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import PEERS, compare, main, median_ratio, with_slack
from pytest_loraperf.calibrate.noise import KINDS, Times
from pytest_loraperf.calibrate.recording import Recording, write_recording
from pytest_loraperf.verdict.types import Status


def recording(rounds: int = 60) -> Recording:
    samples, reference = KINDS["Gaussian"](np.random.default_rng(0), rounds)
    arms = {"+0%": tuple(reference.tolist()), "+0% again": tuple(samples.tolist())}
    return Recording("a call", "a card", "2.9.0", "tiny", {}, "fused", arms, (tuple(arms),) * rounds)


def constant(seconds: float, rounds: int = 20) -> Times:
    return np.full(rounds, seconds)


@pytest.mark.parametrize(("ratio", "status"), [(1.0499, Status.PASS), (1.0501, Status.FAIL), (0.5, Status.PASS)])
def test_the_rule_of_pytest_benchmark(ratio: float, status: Status) -> None:
    assert median_ratio(constant(ratio), constant(1.0), 0.05) == (status, 20)


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0.01254, Status.PASS), (0.01256, Status.FAIL)],  # 10 ms and 25 %, and 0.05 ms of slack
)
def test_the_rule_of_pytest_torch(seconds: float, status: Status) -> None:
    assert with_slack(constant(seconds), constant(0.01), 0.25) == (status, 20)


def test_its_suite_takes_the_least_of_three_medians() -> None:
    new = np.concatenate([constant(9.0), constant(1.0), constant(9.0)])
    assert with_slack(new, constant(1.0, 60), 0.05) == (Status.PASS, 60)


def test_medians_have_false_alarms_where_ours_has_none() -> None:
    found = {row.rule: row.tallies[0].failed for row in compare("card", recording(), replays=100)}
    assert found["pytest-benchmark, median:5%, 5 rounds"] > 10
    assert found["pytest-loraperf, limit 5 %, at most 60 rounds"] == 0


def test_one_table_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "card.json", tmp_path / "deep" / "peers.json"
    write_recording(path, recording())
    assert main([str(path), "--json", str(out), "--replays", "2"]) == 0
    titles, _, *body = capsys.readouterr().out.splitlines()
    assert titles == (
        "| rule | recording | false alarms (A/A) | FAIL at +5% | FAIL at +10% | FAIL at +20% | cannot tell (A/A) "
        "| rounds (A/A) | rounds (+20%) |"
    )
    fitting = [peer.name for peer in PEERS if peer.rounds <= 60]
    assert [line.split(" | ")[0] for line in body[: len(fitting)]] == [f"| {name}" for name in fitting]
    assert body[len(fitting) :] == [
        "",
        "- card: 60 rounds of fused, tiny, a card",
        "- card is too short for pytest-loraperf, limit 2 %, at most 150 rounds",
        "- card is too short for pytest-loraperf, limit 5 %, at most 150 rounds",
    ]
    data = json.loads(out.read_text(encoding="utf-8"))
    assert (data["schema"], data["kind"], len(data["rows"])) == (1, "peers", len(fitting))
    assert [tally["slowdown"] for tally in data["rows"][0]["tallies"]] == [0.0, 0.05, 0.1, 0.2]


def test_a_file_that_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.json"
    assert main([str(path)]) == 2
    message = f"peers: recording {path}: cannot be read: No such file or directory; check the path\n"
    assert capsys.readouterr().err == message


def test_replays_are_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["r.json", "--replays", "0"])
    assert capsys.readouterr().err.endswith("error: --replays 0: a positive whole number is allowed\n")
