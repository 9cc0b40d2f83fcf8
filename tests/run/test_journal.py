"""The results so far, beside the results: what an earlier run left is moved aside, and nothing is written twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_results import EIGHT

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.models import Synthetic
from pytest_loraperf.options import Settings
from pytest_loraperf.report.results import Results, read_results
from pytest_loraperf.run.journal import UNFINISHED, open_journal
from pytest_loraperf.session import Session


class Noted(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def results() -> Results:
    return EIGHT


def unasked() -> Results:
    raise AssertionError("there is nothing new to write")


def test_it_is_a_results_file_that_says_what_it_is_and_is_removed(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "out.json", Noted())
    journal.keep(1, results)
    kept = read_results(tmp_path / "out.json.partial")
    assert kept.notes == (*EIGHT.notes, UNFINISHED)
    assert kept.strategies == EIGHT.strategies
    journal.remove()
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_new_is_not_written(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "out.json", Noted())
    journal.keep(None, unasked)
    journal.keep(1, results)
    journal.keep(1, unasked)
    journal.keep(None, unasked)  # the test is run again, and found nothing yet
    journal.path.unlink()
    journal.keep(1, results)
    assert journal.path.exists()


def test_what_an_earlier_run_left_is_moved_aside(tmp_path: Path) -> None:
    for number in (1, 2):
        noted = Noted()
        (tmp_path / "out.json.partial").write_text(f"left {number}")
        open_journal(tmp_path / "out.json", noted)
        aside = tmp_path / f"out.json.partial-{number}"
        assert aside.read_text() == f"left {number}"
        assert noted == [
            f"warning: an earlier run ended before it wrote out.json; what it had measured is in {aside}, "
            "a results file as any other; remove it when it is not needed"
        ]
    assert not (tmp_path / "out.json.partial").exists()


def test_what_cannot_be_moved_aside_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out.json.partial").write_text("left")
    monkeypatch.setattr(Path, "rename", refuse)
    message = (
        f"{tmp_path}/out.json.partial, which a run that ended early left, cannot be moved aside: Permission denied; "
        "move it"
    )
    with pytest.raises(LoraperfError) as caught:
        open_journal(tmp_path / "out.json", Noted())
    assert str(caught.value) == message


def test_results_that_cannot_be_made_or_written_cost_nothing(tmp_path: Path) -> None:
    def unreadable() -> Results:
        raise LoraperfError("worker gw0: results.schema is 9")

    noted = Noted()
    open_journal(tmp_path / "out.json", noted).keep(1, unreadable)
    assert noted == [
        "warning: worker gw0: results.schema is 9; until the end of this run its results are in memory alone"
    ]


def test_a_device_that_is_lost_is_noted_where_it_is_given_back() -> None:
    class Lost:
        model = Synthetic("tiny")

        def close(self) -> None:
            raise RuntimeError("CUDA error: the GPU is lost\nmore of it")

    session = Session(Settings())
    session.benches = {("a",): Lost(), ("b",): Lost()}  # type: ignore[dict-item]  # it only has to be closed
    session.close()
    assert list(session.notes) == [
        "warning: the pipelines of synthetic:tiny could not be given back: RuntimeError: CUDA error: the GPU is lost; "
        "look whether the device still works (loraperf doctor)"
    ]
