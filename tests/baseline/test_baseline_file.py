"""The baseline's file: what is written is read, it merges, and what is wrong is said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pytest_loraperf.baseline.file import baseline_text, read_baseline, update_baseline, write_baseline
from pytest_loraperf.baseline.record import Baseline, Record, Sampled, Subject
from pytest_loraperf.errors import LoraperfError

times = st.floats(1e-6, 1e3)


def record(name: str = "fused", seconds: float = 0.8, **subject: Any) -> Record:
    what = Subject(name=name, gpu="H100", torch="2.11.0", requests=({"steps": 4},), **subject)
    sampled = Sampled(
        created="2026-11-20",
        samples_s=(seconds, 1.1 * seconds),
        reference="standard_lora",
        reference_s=(1.0, 1.1),
    )
    return Record(subject=what, last=sampled, anchor=sampled)


def baseline(*records: Record) -> Baseline:
    return Baseline({each.subject.key: each for each in records})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "baseline.json"


@given(st.lists(st.tuples(st.text(), st.lists(times, min_size=1)), unique_by=lambda pair: pair[0]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, list[float]]]
) -> None:
    path = tmp_path_factory.mktemp("written") / "baseline.json"
    sampled = [(name, Sampled(created="2026-11-20", samples_s=tuple(seconds))) for name, seconds in made]
    records = [
        Record(subject=Subject(name=name, gpu="H100", torch="2"), last=each, anchor=each) for name, each in sampled
    ]
    try:
        write_baseline(path, baseline(*records))
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    assert read_baseline(path) == baseline(*records)


def test_a_file_that_is_not_there_is_empty(path: Path) -> None:
    assert read_baseline(path) == Baseline()


def test_the_text_is_sorted_and_one_block_a_record() -> None:
    one, two = record("fused"), record("attach")
    text = baseline_text(baseline(one, two))
    assert text == baseline_text(baseline(two, one))
    blocks = text.split("\n\n")
    assert [block.split(" on ")[0] for block in blocks[1:3]] == ['"attach', '"fused']
    assert blocks[0] == '{"schema": 1, "records": {'
    assert blocks[3:] == ['"": null}, "goldens": {', '"": null}}\n']


def test_two_branches_that_add_records_merge_in_git(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        made = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        return subprocess.run(
            ["git", "-C", str(tmp_path), *words],  # noqa: S607 - whichever git there is
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **made},
        ).stdout

    def commit(*records: Record) -> None:
        write_baseline(tmp_path / "baseline.json", baseline(*records))
        git("add", "baseline.json")
        git("commit", "-qm", "records")

    middle = record("m")
    git("init", "-q", "-b", "main")
    commit(middle)
    git("checkout", "-qb", "ours")
    commit(record("a"), middle, record("z"))
    git("checkout", "-q", "main")
    faster = replace(middle, last=replace(middle.last, samples_s=(0.5, 0.6)))
    commit(faster)
    git("merge", "-q", "ours")
    assert read_baseline(tmp_path / "baseline.json") == baseline(record("a"), faster, record("z"))


KEY = record().subject.key
ROUNDS = len(record().last.samples_s)


def broken(*place: str | int, value: Any) -> str:
    """Return a good file with one thing in it changed."""
    data: Any = json.loads(baseline_text(baseline(record())))
    found = data
    for step in place[:-1]:
        found = found[step]
    found[place[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (broken("schema", value=9), r"schema is 9, this version reads 1; make it anew with this version"),
        (broken("schema", value=None), r"schema is null, this version reads 1"),
        ("[]", r"schema is \[\], this version reads 1"),
        (broken("records", value=[1]), r"records is \[1\], an object is expected; take it from git again"),
        (
            broken("records", KEY, "last", "samples_s", 0, value=0),
            r"samples are positive seconds, and at least one; take the record out and make it anew",
        ),
        (
            broken("records", KEY, "last", "reference_s", value=[1.0]),
            r"samples and those of the reference are of the same rounds; take the record out",
        ),
        (
            broken("records", KEY, "last", "reference_s", value=[5e-324] * ROUNDS),
            r"samples and those of the reference are too far apart to be times; take the record out",
        ),
        (
            broken("records", KEY, "anchor", "samples_s", value=[]),
            r"samples are positive seconds, and at least one",
        ),
        (
            broken("records", KEY, "last", "samples_s", 0, value="fast"),
            r"samples_s\[0\] is .fast., a finite number is expected; measure again to write it anew$",
        ),
        (
            broken("records", KEY, "max_slowdown", value=-0.1),
            r"max_slowdown is -0.1; 0 or more is allowed; take the record out",
        ),
        (
            broken("records", KEY, "subject", "gpu", value="H200"),
            r"holds the record of 'fused on H200 \[\w+\]': its subject was edited; take the record",
        ),
        (broken("records", KEY, value=None), r"is null, an object is expected; measure again to write it anew$"),
        ('{"a": 1, "a": 2}', r"'a' is there twice, as after a merge that kept both; keep one"),
        ('{"schema": 1,\n<<<<<<< ours', r"no JSON, truncated, or a merge that was left half done \(.*\); mend it"),
        ('{"schema": NaN}', r"no JSON, truncated, or .*NaN is no JSON number"),
        ("[" * 100_000, r"no JSON, truncated"),
        ("", r"no JSON, truncated"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(LoraperfError, match=rf"^baseline {path}: .*{message}") as caught:
        read_baseline(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(LoraperfError, match=message):
        update_baseline(path, lambda found: found)
    assert path.read_text() == text


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        LoraperfError, match=rf"^baseline {tmp_path}: cannot be read: .*directory.*; check the path$"
    ):
        read_baseline(tmp_path)


class TestUpdating:
    def test_runs_at_once_lose_nothing(self, path: Path) -> None:
        def add(name: str) -> None:
            new = record(name)
            update_baseline(path, lambda found: Baseline({**found.records, new.subject.key: new}))

        threads = [threading.Thread(target=add, args=(f"s{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {each.subject.name for each in read_baseline(path).records.values()} == {f"s{n}" for n in range(8)}

    def test_a_lock_that_is_held_is_said(self, path: Path) -> None:
        with (
            FileLock(path.with_name(".baseline.json.lock")),
            pytest.raises(
                LoraperfError, match=r"another run has held its lock for 0 s; nothing was changed, run it"
            ),
        ):
            update_baseline(path, lambda found: found, wait=0.0)

    def test_a_change_that_fails_leaves_the_file_and_no_lock(self, path: Path) -> None:
        write_baseline(path, baseline(record()))
        before = path.read_text()

        def fail(_: Baseline) -> Baseline:
            raise LoraperfError("no")

        with pytest.raises(LoraperfError, match=r"^no$"):
            update_baseline(path, fail)
        assert path.read_text() == before
        update_baseline(path, lambda found: found, wait=0.0)

    def test_a_disk_that_is_full_loses_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_baseline(path, baseline(record()))
        before = path.read_text()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            LoraperfError, match=r"cannot be written: No space left on device; nothing was changed$"
        ):
            update_baseline(path, lambda _: Baseline())
        assert path.read_text() == before

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LoraperfError, match=r"cannot be locked: (File exists|Not a directory); nothing was"):
            update_baseline(tmp_path / "file" / "baseline.json", lambda found: found)
