"""The results and their JSON: a round trip, and a clear word on every file that is no results file."""

from __future__ import annotations

import json
import math
import os
from collections import UserString
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_results import EIGHT, MACHINE

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.limits import Limit, Rates
from pytest_loraperf.report.results import (
    SCHEMA,
    ComparisonRecord,
    Latency,
    LoraCoverage,
    Machine,
    OutputComparison,
    Ratio,
    Results,
    SetupStep,
    StrategyResult,
    SweepPoint,
    VerdictRecord,
    Vram,
    read_results,
    write_results,
)
from pytest_loraperf.writable import check_writable

finite = st.floats(allow_nan=False, allow_infinity=False)
size = st.integers(0, 2**50)
pair = st.tuples(finite, finite)
text = st.text(max_size=20)


strategy_results = st.builds(
    StrategyResult,
    steps=st.lists(text, max_size=3).map(tuple),
    scheme=st.none() | text,
    scheme_reason=st.none() | text,
    mistake=st.none() | text,
    setup=st.lists(
        st.builds(
            SetupStep, seconds=finite, layers=size, layers_total=size, vram_peak=st.none() | size, note=text
        ),
        max_size=2,
    ).map(tuple),
    samples_s=st.lists(finite, max_size=3).map(tuple),
    latency=st.none() | st.builds(Latency, median_s=finite, ci_s=pair, rounds=size),
    ratio=st.none() | st.builds(Ratio, value=finite, ci=pair),
    vram=st.builds(Vram, *[st.none() | size] * 4),
    output=st.none()
    | st.builds(
        OutputComparison,
        reference=text,
        rel_l2=st.none() | finite,
        max_abs=st.none() | finite,
        cosine=st.none() | finite,
        psnr=st.none() | finite,
        effect_kept=st.none() | finite,
        image=st.none() | st.dictionaries(text, st.none() | finite, max_size=2),
    ),
    limit=st.none()
    | st.builds(
        Limit,
        seconds=finite,
        bytes=size,
        bus_bytes=size,
        operations=st.dictionaries(text, size, max_size=2),
        not_counted=st.just(("a",)),
    ),
    lora=st.none()
    | st.builds(
        LoraCoverage, layers_matched=size, layers_total=size, rank=st.none() | size, gain_min=st.none() | finite
    ),
    error=st.none() | text,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=5,
)
all_results = st.builds(
    Results,
    machine=st.builds(
        Machine,
        rates=st.none()
        | st.builds(
            Rates,
            operations=st.dictionaries(text, finite, max_size=2),
            bytes=finite,
            bus_bytes=st.none() | finite,
        ),
    ),
    request=st.dictionaries(text, json_values, max_size=3),
    strategies=st.dictionaries(text, strategy_results, max_size=3),
    verdicts=st.lists(st.builds(VerdictRecord), max_size=2).map(tuple),
    notes=st.lists(text, max_size=2).map(tuple),
    sweep=st.lists(
        st.builds(SweepPoint, value=size, images=size, image_s_with_setup=st.none() | finite), max_size=2
    ).map(tuple),
)


@given(all_results)
def test_json_text_gives_the_results_again(results: Results) -> None:
    assert Results.from_json(json.loads(json.dumps(results.to_json(), allow_nan=False))) == results


def test_file_gives_the_results_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "results.json"
    write_results(path, EIGHT)
    assert read_results(path) == EIGHT
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


def test_keys_of_the_schema() -> None:
    data = EIGHT.to_json()
    assert data["schema"] == SCHEMA == 1
    assert list(data) == [
        "schema",
        "plugin_version",
        "created",
        "command",
        "machine",
        "model",
        "request",
        "strategies",
        "verdicts",
        "comparisons",
        "notes",
        "gpu_budget",
        "sweep",
    ]
    fused = data["strategies"]["fused"]
    assert {key: sorted(value) for key, value in fused.items() if isinstance(value, dict)} == {
        "latency": ["ci_s", "median_s", "rounds"],
        "ratio": ["ci", "interleaved", "of", "value"],
        "vram": ["allocated_peak", "resident", "runtime_peak", "setup_peak"],
        "output": ["cosine", "effect_kept", "image", "max_abs", "psnr", "reference", "rel_l2"],
        "lora": ["gain_median", "gain_min", "gains", "layers_matched", "layers_total", "rank"],
    }
    assert sorted(set(fused) - {"latency", "ratio", "vram", "output", "lora"}) == [
        "adapters",
        "error",
        "gpu_s",
        "limit",
        "memory",
        "mistake",
        "model",
        "requests",
        "samples_s",
        "scheme",
        "scheme_reason",
        "setup",
        "steps",
        "steps_s",
    ]
    assert sorted(fused["setup"][0]) == ["layers", "layers_total", "note", "seconds", "step", "vram_peak"]
    assert sorted(data["verdicts"][0]) == [
        "code",
        "detail",
        "message",
        "nodeid",
        "status",
        "strategy",
        "tighter",
    ]
    assert sorted(data["machine"]) == ["backend", "device", "driver", "memory_kind", "name", "rates", "torch"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_becomes_null(number: float) -> None:
    strategy = StrategyResult(output=OutputComparison("standard_lora", number, number, 1.0, number))
    found = replace(EIGHT, request={"scale": [number]}, strategies={"fused": strategy}).to_json()
    assert found["request"] == {"scale": [None]}
    assert found["strategies"]["fused"]["output"]["psnr"] is None
    assert Results.from_json(found).strategies["fused"].output == OutputComparison(
        "standard_lora", None, None, 1.0, None
    )


class Colour(StrEnum):
    RED = "red"


class Float64(float):
    """As a number of an array library is one."""


class Int64(int):
    """As a number of an array library is one."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Float64(0.5), 0.5),
        (Int64(3), 3),
        (Fraction(1, 4), 0.25),
        (True, True),
        (Path("a.png"), repr(Path("a.png"))),
        (UserString("a"), "'a'"),
    ],
)
def test_nothing_but_the_types_of_json_is_written(value: object, plain: object) -> None:
    found = replace(EIGHT, request={"extra": (value,)}).to_json()["request"]
    assert found == {"extra": [plain]}
    assert type(found["extra"][0]) is type(plain)


def test_key_that_is_no_text_becomes_one() -> None:
    (key,) = replace(EIGHT, request={Colour.RED: 1}).to_json()["request"]
    assert type(key) is str


def _machine_is(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(machine=value)


def _fused(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["strategies"]["fused"].update({key: value})


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


AT = "results.strategies['fused']"
AGAIN = "measure again to write it anew"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("model"), f"results.model is missing, a value is expected; {AGAIN}"),
        (_without("machine", "name"), f"results.machine.name is missing, a value is expected; {AGAIN}"),
        (_machine_is("H100"), f'results.machine is "H100", an object is expected; {AGAIN}'),
        (_fused("error", 3), f"{AT}.error is 3, a text is expected; {AGAIN}"),
        (_fused("steps", "fuse"), f'{AT}.steps is "fuse", a list is expected; {AGAIN}'),
        (_fused("steps", ["fuse", None]), f"{AT}.steps[1] is null, a text is expected; {AGAIN}"),
        (_fused("samples_s", [1.0, True]), f"{AT}.samples_s[1] is true, a finite number is expected; {AGAIN}"),
        (_fused("samples_s", [math.nan]), f"{AT}.samples_s[0] is NaN, a finite number is expected; {AGAIN}"),
        (
            _fused("samples_s", [10**400]),
            f"{AT}.samples_s[0] is 1{'0' * 38}…, a finite number is expected; {AGAIN}",
        ),
        (
            _fused("latency", {"median_s": 1, "ci_s": [1.0], "rounds": 3}),
            f"{AT}.latency.ci_s is a list of 1, one of 2 is expected; {AGAIN}",
        ),
        (
            _fused("latency", {"median_s": 1, "ci_s": [1, 2], "rounds": 2.5}),
            f"{AT}.latency.rounds is 2.5, a whole number from 0 to below 2**63 is expected; {AGAIN}",
        ),
        (
            _fused("vram", {"runtime_peak": 10**400}),
            f"{AT}.vram.runtime_peak is 1{'0' * 38}…, a whole number from 0 to below 2**63 is expected; {AGAIN}",
        ),
        (
            _fused("vram", {"runtime_peak": -1}),
            f"{AT}.vram.runtime_peak is -1, a whole number from 0 to below 2**63 is expected; {AGAIN}",
        ),
        (
            _fused("ratio", {"of": "standard_lora", "value": 1.0, "ci": [1, 2], "interleaved": 1}),
            f"{AT}.ratio.interleaved is 1, true or false is expected; {AGAIN}",
        ),
        (
            lambda data: data["strategies"].update({"two\nlines": None}),
            rf"results.strategies['two\nlines'] is null, an object is expected; {AGAIN}",
        ),
        (
            lambda data: data.update(request={"cfg": [1.0, {"scale": math.inf}]}),
            f"results.request['cfg'][1]['scale'] is Infinity, a finite number is expected; {AGAIN}",
        ),
        (_without("schema"), "results.schema is null, this version reads 1; measure again with this version"),
        (
            lambda data: data.update(schema=2),
            "results.schema is 2, this version reads 1; measure again with this version",
        ),
        (
            lambda data: data.update(schema=True),
            "results.schema is true, this version reads 1; measure again with this version",
        ),
    ],
)
def test_wrong_value_is_named(change: Callable[[dict[str, Any]], None], message: str) -> None:
    data = EIGHT.to_json()
    change(data)
    with pytest.raises(LoraperfError) as caught:
        Results.from_json(data)
    assert str(caught.value) == message


def test_list_is_no_results() -> None:
    with pytest.raises(LoraperfError) as caught:
        Results.from_json([1])
    assert str(caught.value) == f"results is [1], an object is expected; {AGAIN}"


@given(json_values)
def test_other_json_is_refused_in_one_line(data: object) -> None:
    with pytest.raises(LoraperfError) as caught:
        Results.from_json(data)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(LoraperfError) as caught:
        read_results(path)
    assert str(caught.value) == f"results {path}: cannot be read: No such file or directory; check the path"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"PNG", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"schema": NaN}', "NaN is no JSON number"),
        (b'{"schema": -Infinity}', "-Infinity is no JSON number"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_file_that_is_no_json(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(LoraperfError) as caught:
        read_results(path)
    assert str(caught.value) == f"results {path}: no JSON, or truncated ({reason}); measure again"


# Near the recursion limit: some Pythons parse it, and can then not walk through it.
NEAR_LIMIT = json.dumps({**EIGHT.to_json(), "request": {"deep": "@"}}).replace('"@"', "[" * 990 + "]" * 990)
TRUNCATED = json.dumps(EIGHT.to_json())[:-500]


@pytest.mark.parametrize(
    "content", ["[" * 200_000, NEAR_LIMIT, TRUNCATED], ids=["deep", "near-limit", "truncated"]
)
def test_broken_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        LoraperfError, match=r"^results .*results\.json: no JSON, or truncated \(.*\); measure again$"
    ):
        read_results(path)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"schema": 1, "model": "a", "model": "b"}', encoding="utf-8")
    with pytest.raises(
        LoraperfError,
        match=r"^results .*: 'model' is there twice, as after a merge that kept both; keep one$",
    ):
        read_results(path)


def test_number_that_overflows_to_infinity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(EIGHT.to_json()).replace('"height": 1024', '"height": 1e999'), encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        read_results(path)
    assert str(caught.value) == (
        f"results {path}: results.request['height'] is Infinity, a finite number is expected; {AGAIN}"
    )


def test_file_of_another_schema(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2}', encoding="utf-8")
    with pytest.raises(LoraperfError) as caught:
        read_results(path)
    assert str(caught.value) == (
        f"results {path}: results.schema is 2, this version reads 1; measure again with this version"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/results.json", "File exists"),
        ("folder", "it is there and no regular file"),
        ("x" * 256, "File name too long"),
    ],
)
def test_file_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LoraperfError) as caught:
        write_results(tmp_path / name, EIGHT)
    assert str(caught.value) == (
        f"results {tmp_path / name}: cannot be written: {reason}; name a file in a folder that can be written"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    with pytest.raises(LoraperfError, match="it is there and no regular file"):
        write_results(link, EIGHT)
    assert link.is_symlink()


def test_link_is_kept_and_its_file_replaced(tmp_path: Path) -> None:
    kept, link = tmp_path / "shared" / "results.json", tmp_path / "results.json"
    kept.parent.mkdir()
    kept.write_text("old", encoding="utf-8")
    link.symlink_to(kept)
    write_results(link, EIGHT)
    assert link.is_symlink()
    assert read_results(kept) == EIGHT
    assert [each.name for each in kept.parent.iterdir()] == ["results.json"]


def test_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_results(path, EIGHT)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(LoraperfError, match="cannot be written: No space left on device; name a file"):
        write_results(path, replace(EIGHT, notes=("new",)))
    assert read_results(path) == EIGHT
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_reader_at_work_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, EIGHT)
    with path.open(encoding="utf-8") as file:
        write_results(path, replace(EIGHT, notes=("new",)))
        assert json.load(file) == EIGHT.to_json()
    assert read_results(path).notes == ("new",)


@pytest.mark.parametrize(
    ("strategy", "verdict"),
    [
        ("quantize_then_fuse", "FAIL"),
        ("low_vram", "INCONCLUSIVE"),
        ("fused", "PASS"),
        ("standard_lora", ""),
        ("low_vram_optimized", ""),
    ],
)
def test_verdict_of_a_strategy_is_the_worst(strategy: str, verdict: str) -> None:
    assert EIGHT.verdict_of(strategy) == verdict


def test_machine_without_a_driver_is_read() -> None:
    results = replace(EIGHT, machine=replace(MACHINE, driver=None))
    assert Results.from_json(results.to_json()).machine.driver is None


def test_a_file_with_the_least_there_is_can_be_read() -> None:
    found = Results.from_json(
        {
            "schema": 1,
            "plugin_version": "0.9",
            "created": "today",
            "machine": {"device": "cuda:0", "name": "H100", "torch": "2.11"},
            "model": "synthetic:full",
            "request": {},
            "strategies": {"fused": {"samples_s": [1.0, 2.0], "from_a_later_version": 1}},
        }
    )
    assert found.strategies["fused"].samples_s == (1.0, 2.0)
    assert (found.command, found.machine.driver, found.verdicts, found.notes) == ("", None, (), ())


def test_a_folder_that_takes_no_file_is_refused_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with as_nobody(tmp_path), pytest.raises(LoraperfError) as caught:
        check_writable(path)
    assert str(caught.value) == f"--loraperf-json={path}: cannot be written: Permission denied"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Make its files writable, but not the folder itself, also for root, whom no permission stops."""
    for file in folder.iterdir():
        file.chmod(0o666)
    root = os.geteuid() == 0
    above = [
        each for each in folder.parents if root and each.stat().st_uid == 0 and each.stat().st_mode & 0o5 == 0
    ]
    modes = {each: each.stat().st_mode for each in (folder, *above)}
    for each in modes:
        each.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for each, mode in modes.items():
            each.chmod(mode)


def test_lists_that_belong_together_are_of_one_length() -> None:
    samples = {"a": (1.0, 2.0), "b": (1.0,)}
    taken = ComparisonRecord(arms=("a", "b"), interleaved=True, samples_s=samples)
    data = replace(EIGHT, comparisons=(taken,)).to_json()
    with pytest.raises(LoraperfError) as caught:
        Results.from_json(data)
    assert str(caught.value) == (
        "results.comparisons[0].samples_s: the lists are of 1 and 2 values, one length is expected; measure again to "
        "write them anew"
    )
