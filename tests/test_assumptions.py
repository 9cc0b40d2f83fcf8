"""The cases in which assumptions of the verdicts do not hold: each breaks what it says, and they make one table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import assumptions
from benchmarks.assumptions import ROUNDS, SLOWDOWNS, main, sources


def drawn(name: str, rounds: int = 150, draws: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the samples and of the reference, shape (draws, rounds)."""
    (source,) = [each for each in sources() if each.name == name]
    rng = np.random.default_rng(0)
    pairs = np.log([source.draw(rng, rounds, 0.0, exact=True) for _ in range(draws)])
    return pairs[:, 0], pairs[:, 1]


def correlation(logs: np.ndarray) -> float:
    return float(np.corrcoef(logs[:, :-1].ravel(), logs[:, 1:].ravel())[0, 1])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_times_resemble_those_of_the_round_before(share: float) -> None:
    samples, reference = drawn(f"rounds resemble: {share}")
    assert correlation(samples) == pytest.approx(share, abs=0.05)
    assert correlation(samples - reference) == pytest.approx(share, abs=0.05)


def test_modes_last_ten_rounds() -> None:
    samples, _ = drawn("modes that last")
    changes = np.abs(np.diff(samples > 0.05)).mean()
    assert changes == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", ["outliers", "skewed", "drifts"])
def test_what_one_arm_has_leaves_its_median(name: str) -> None:
    samples, reference = drawn(f"one arm: {name}")
    assert np.median(samples - reference) == pytest.approx(0, abs=0.01)
    assert samples.std() > 1.2 * reference.std() or name == "drifts"


def test_one_arm_drifts_and_one_warms_up() -> None:
    samples, _ = drawn("one arm: drifts")
    assert np.abs(samples[:, -30:].mean(axis=1) - samples[:, :30].mean(axis=1)).mean() == pytest.approx(
        0.04, abs=0.005
    )
    samples, _ = drawn("one arm: warms up")
    assert samples[:, 0].mean() == pytest.approx(0.3, abs=0.02)
    assert samples[:, 20:].mean() == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("name", ["resemble 0.7", "recorded, recording-short"])
def test_a_limit_in_seconds_is_constant(name: str) -> None:
    samples, reference = drawn(f"seconds: {name}")
    assert np.ptp(reference) == 0
    assert np.median(samples) == pytest.approx(reference[0, 0], abs=0.02)
    assert correlation(samples) == pytest.approx(0.7, abs=0.05)


def test_one_table_and_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assumptions, "RECORDINGS", ())
    out = tmp_path / "counts.json"
    assert main(["--replays", "2", "--json", str(out)]) == 0
    titles, _, *body = capsys.readouterr().out.splitlines()
    assert titles == (
        "| case | FAIL at +0%, 30 rounds | FAIL at the limit | PASS beyond "
        "| FAIL at +0%, 150 rounds | FAIL at the limit | PASS beyond |"
    )
    assert [line.split(" | ")[0].removeprefix("| ") for line in body] == [each.name for each in sources()]
    data = json.loads(out.read_text(encoding="utf-8"))
    assert (data["schema"], data["kind"], len(data["rows"])) == (1, "assumptions", len(body))
    slowdowns = [[tally["slowdown"] for tally in tallies] for tallies in data["rows"][0]["tallies"]]
    assert slowdowns == [list(SLOWDOWNS)] * len(ROUNDS)


def test_what_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assumptions, "RECORDINGS", (tmp_path / "none.json",))
    assert main(["--replays", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"assumptions: recording {tmp_path / 'none.json'}: cannot be read: ")
    with pytest.raises(SystemExit, match="2"):
        main(["--replays", "0"])
    assert capsys.readouterr().err.endswith("error: --replays 0: a positive whole number is allowed\n")
