"""Verdicts on golden latents: each can fail, and the record of one says what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.baseline.file import baseline_text, read_baseline, write_baseline
from pytest_loraperf.baseline.golden import (
    Distance,
    Golden,
    GoldenSubject,
    Made,
    judge_golden,
    missing,
    not_finite,
    untold,
)
from pytest_loraperf.baseline.record import Baseline, Record, Sampled, Subject
from pytest_loraperf.baseline.unmeasured import unmeasured
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.verdict.types import Status

SUBJECT = GoldenSubject(
    name="fused", gpu="H100", backend="diffsynth", model="m", request={"seed": 0}, dtype="bfloat16"
)
MADE = Made(created="2026-11-20", steps=("fuse",), versions={"torch": "2.11.0", "diffsynth": "2.1.12"})
SHAPE = (1, 16, 8, 8)
GOLDEN = Golden(subject=SUBJECT, made=MADE, file=SUBJECT.file, sha256="0" * 64, shape=SHAPE, norm=32.0)
COMMAND = "pytest --update"


def judged(
    rel_l2: float, now: Made = MADE, golden: Golden = GOLDEN, shape: tuple[int, ...] = SHAPE
) -> tuple[Status, str]:
    found = judge_golden(golden, now, shape, Distance(rel_l2), COMMAND)
    assert found.code == "golden"
    return found.status, found.message


class TestAnOutput:
    def test_within_the_limit_passes(self) -> None:
        assert judged(0.019) == (
            Status.PASS,
            "fused: the output is that of 2026-11-20 (relative L2 0.019, at most 0.02)",
        )

    def test_a_day_that_was_edited_moves_no_cursor(self) -> None:
        edited = replace(GOLDEN, made=replace(MADE, created="\x1b[2K\n"))
        for found in (0.019, 0.021):
            assert judged(found, golden=edited)[1].isprintable()

    def test_beyond_it_fails_with_what_changed_and_what_to_do(self) -> None:
        now = Made(created="2026-11-24", steps=("fuse",), versions={"torch": "2.12.0", "torchao": "0.17"})
        assert judged(0.021, now) == (
            Status.FAIL,
            "fused: the output is not that of 2026-11-20: relative L2 0.021 to the golden latents, the limit is at "
            "most 0.02; since then torch was 2.11.0 and is 2.12.0, diffsynth was 2.1.12 and is none, torchao was none "
            "and is 0.17; look for what changed, or accept it with: pytest --update",
        )

    def test_where_no_version_changed_that_is_said(self) -> None:
        status, message = judged(0.5)
        assert status is Status.FAIL
        assert "; versions and steps are those of then (torch 2.11.0, diffsynth 2.1.12); look for" in message

    def test_another_shape_is_another_output(self) -> None:
        status, message = judged(0.0, shape=(1, 16, 4, 4))
        assert status is Status.FAIL
        assert message.startswith(
            "fused: the latents are of shape (1, 16, 4, 4), the golden ones of 2026-11-20 of (1, 16, 8, 8); "
        )

    def test_that_is_no_number_fails(self) -> None:
        assert judged(float("nan"))[0] is Status.FAIL

    @pytest.mark.parametrize(
        ("then", "now", "limit"),
        [(None, None, 0.02), ("fp8_storage", "fp8_storage", 0.08), ("fp8_storage", None, 0.02), ("x", "x", 0.08)],
    )
    def test_the_limit_is_that_of_the_stricter_scheme(
        self, then: str | None, now: str | None, limit: float
    ) -> None:
        golden = replace(GOLDEN, made=replace(MADE, scheme=then))
        assert golden.limit(replace(MADE, scheme=now)) == limit

    def test_another_scheme_that_was_chosen_by_itself_is_told(self) -> None:
        status, message = judged(
            0.05, replace(MADE, scheme="fp8_storage", steps=("fuse", "quantize[fp8_storage]"))
        )
        assert status is Status.FAIL
        assert "since then the steps were fuse and are fuse → quantize[fp8_storage]; look" in message

    def test_a_limit_that_was_set_by_hand_holds(self) -> None:
        assert judged(0.3, golden=replace(GOLDEN, max_rel_l2=0.4))[0] is Status.PASS
        assert judged(0.01, golden=replace(GOLDEN, max_rel_l2=0.0))[0] is Status.FAIL
        assert judged(0.0, golden=replace(GOLDEN, max_rel_l2=0.0))[0] is Status.PASS

    def test_that_is_not_finite_fails_whatever_is_stored(self) -> None:
        found = not_finite("fused", 3, 1024)
        assert (found.status, found.code) == (Status.FAIL, "golden-not-finite")
        assert found.message == (
            "fused: 3 of 1024 values of the latents are not finite, so nothing can be held to them; look for an "
            "overflow (a dtype or a scheme that is too narrow)"
        )


@pytest.mark.parametrize(("strict", "status"), [(True, Status.FAIL), (False, Status.SKIPPED)])
class TestWhatCannotBeTold:
    def test_missing(self, strict: bool, status: Status) -> None:
        found = missing(SUBJECT, {}, strict=strict, command=COMMAND)
        assert (found.status, found.code) == (status, "golden-missing")
        assert found.message == (
            "no golden latents of fused on H100 with this model and request; make them anew with: pytest --update"
        )

    def test_of_another_dtype(self, strict: bool, status: Status) -> None:
        here = replace(SUBJECT, dtype="float16", scheme="auto")
        found = missing(here, {SUBJECT.key: GOLDEN}, strict=strict, command=COMMAND)
        assert found.status is status
        assert found.message == (
            "the golden latents of fused are of scheme none (here auto), dtype bfloat16 (here float16); "
            "make them anew with: pytest --update"
        )

    def test_of_another_adapter(self, strict: bool, status: Status) -> None:
        here, then = replace(SUBJECT, adapters=("b.safetensors:0.8",)), replace(SUBJECT, adapters=())
        found = missing(here, {then.key: replace(GOLDEN, subject=then)}, strict=strict, command=COMMAND)
        assert found.status is status
        assert found.message == (
            "the golden latents of fused are of adapters none (here b.safetensors:0.8); make them anew with: pytest "
            "--update"
        )

    def test_of_another_gpu_or_request_is_another_thing(self, strict: bool, status: Status) -> None:
        for other in (replace(SUBJECT, gpu="L40S"), replace(SUBJECT, request={"seed": 1})):
            found = missing(other, {SUBJECT.key: GOLDEN}, strict=strict, command=COMMAND)
            assert found.status is status
            assert found.message.startswith("no golden latents of fused on ")

    def test_damaged(self, strict: bool, status: Status) -> None:
        found = untold("golden-damaged", "it is", strict=strict, command=COMMAND, remedy="mend it, or ")
        assert (found.status, found.message) == (status, "it is; mend it, or make them anew with: pytest --update")


class TestTheRecord:
    def test_is_written_and_read(self, tmp_path: Path) -> None:
        stored = Baseline(goldens={SUBJECT.key: GOLDEN})
        write_baseline(tmp_path / "base.json", stored)
        assert read_baseline(tmp_path / "base.json") == stored

    def test_a_file_from_before_there_were_any_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "base.json").write_text('{"schema": 1, "records": {"": null}}')
        assert read_baseline(tmp_path / "base.json") == Baseline()

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (
                ("file",),
                "../../etc/passwd",
                r"file is '\.\./\.\./etc/passwd'; the name of a \.safetensors file is ",
            ),
            (
                ("file",),
                "a.pkl",
                r"file is 'a\.pkl'; the name of a \.safetensors file is allowed, no path; take the",
            ),
            (("stride",), 0, r"shape and stride are whole numbers of at least 1, and norm is not negative; take"),
            (("shape",), [], r"shape and stride are whole numbers of at least 1"),
            (("norm",), "x", r"norm is .x., a finite number is expected"),
            (("max_rel_l2",), -1, r"max_rel_l2 is -1\.0; 0 or more is allowed; take the record out and make it"),
            (
                ("subject", "dtype"),
                "float16",
                r"holds the record of 'fused on H100 \[\w+\]': its subject was edited",
            ),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(
        self, tmp_path: Path, place: tuple[str, ...], value: Any, message: str
    ) -> None:
        data: Any = json.loads(baseline_text(Baseline(goldens={SUBJECT.key: GOLDEN})))
        found = data["goldens"][SUBJECT.key]
        for step in place[:-1]:
            found = found[step]
        found[place[-1]] = value
        path = tmp_path / "base.json"
        path.write_text(json.dumps(data))
        with pytest.raises(LoraperfError, match=rf"^baseline {path}: goldens\[.*{message}") as caught:
            read_baseline(path)
        assert "\n" not in str(caught.value)

    def test_goldens_that_are_no_object(self, tmp_path: Path) -> None:
        path = tmp_path / "base.json"
        path.write_text('{"schema": 1, "records": {}, "goldens": [1]}')
        with pytest.raises(
            LoraperfError, match=r"goldens is \[1\], an object is expected; take it from git again$"
        ):
            read_baseline(path)

    def test_a_hostile_name_makes_a_plain_file(self) -> None:
        hostile = replace(SUBJECT, name="../a b\n" + "x" * 500)
        assert hostile.file.startswith("-a-b-xxx")
        assert len(hostile.file) < 100
        assert "/" not in hostile.file
        assert "\n" not in hostile.key
        replace(GOLDEN, subject=hostile, file=hostile.file)  # which its own check takes


class TestUnmeasured:
    @staticmethod
    def record(**subject: Any) -> Record:
        what = Subject(**{"name": "fused", "gpu": "H100", "torch": "2.11.0", **subject})
        sampled = Sampled(created="2026-11-20", samples_s=(1.0,))
        return Record(subject=what, last=sampled, anchor=sampled)

    def baseline(self, *records: Record, goldens: tuple[Golden, ...] = ()) -> Baseline:
        return Baseline({each.subject.key: each for each in records}, {each.subject.key: each for each in goldens})

    def test_what_was_measured_is_not_told(self) -> None:
        mine = self.record()
        stored = self.baseline(mine, goldens=(GOLDEN,))
        assert list(unmeasured(stored, [mine.subject], [SUBJECT])) == []

    def test_what_no_test_measured_is_told_with_its_name(self) -> None:
        mine, gone = self.record(), self.record(name="gone")
        (line,) = unmeasured(self.baseline(mine, gone, goldens=(GOLDEN,)), [mine.subject], [])
        assert line == (
            "2 records measured by no test of this run (gone, fused (latents)): the tests failed, were skipped or are "
            "gone; take out what is of no use"
        )

    def test_other_gpus_and_other_versions_of_the_same_are_not_meant(self) -> None:
        mine = self.record()
        other = replace(SUBJECT, scheme="fp8_storage")
        golden = replace(GOLDEN, subject=other, file=other.file)
        stored = self.baseline(mine, self.record(gpu="L40S"), self.record(torch="2.10.0"), goldens=(golden,))
        assert list(unmeasured(stored, [mine.subject], [SUBJECT])) == []

    def test_where_nothing_was_measured_all_are_meant_and_names_are_few(self) -> None:
        stored = self.baseline(*(self.record(name=f"s{number}", gpu=f"G{number}") for number in range(5)))
        (line,) = unmeasured(stored, [], [])
        assert line.startswith("5 records measured by no test of this run (s0, s1, s2, …): ")

    def test_one(self) -> None:
        (line,) = unmeasured(self.baseline(self.record()), [], [])
        assert line.startswith("1 record measured by no test of this run (fused): ")
