"""The rules on events alone; their samples of source are tested with the linter."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_loraperf.order.events import Event, Kind, Place
from pytest_loraperf.order.rules import DEFAULT, RULES, check
from pytest_loraperf.order.rules.base import Rule

LINES = iter(range(1, 10_000))
EVERY = frozenset(rule.code for rule in RULES)


def done(kind: Kind, **details: Any) -> Event:
    return Event(kind, f"pipe.{kind}", Place("app.py", next(LINES)))._replace(**details)


LOADED_BF16 = done(Kind.LOAD)
LOADED_FP8 = done(Kind.LOAD, quantizes=True)
ATTACH, FUSE, QUANTIZE, OFFLOAD, COMPILE = (
    done(kind) for kind in (Kind.ATTACH, Kind.FUSE, Kind.QUANTIZE, Kind.OFFLOAD, Kind.COMPILE)
)
DIFFSYNTH1 = done(Kind.QUANTIZE, needs_fp8=True)
HOTSWAP, UNFUSE, DETACH = done(Kind.HOTSWAP), done(Kind.UNFUSE), done(Kind.DETACH)
A, B = done(Kind.FUSE, adapter="a"), done(Kind.FUSE, adapter="b")
EVERY_ONE, SELECT = done(Kind.FUSE, every=True), done(Kind.SELECT)
DEQUANTIZE, ONLOAD = done(Kind.DEQUANTIZE), done(Kind.ONLOAD)
NOTHING = done(Kind.QUANTIZE, layers=0, total=840)
PART, NONE = done(Kind.FUSE, layers=800, total=840), done(Kind.ATTACH, layers=0, total=840)
FILTERED = done(Kind.QUANTIZE, filtered=True)


def broken(*events: Event) -> list[str]:
    return [found.code for i, event in enumerate(events) for found in check(events[:i], event, EVERY)]


@pytest.mark.parametrize(
    ("events", "codes"),
    [
        ([FUSE, QUANTIZE, OFFLOAD, COMPILE], []),
        ([ATTACH, COMPILE], []),
        ([QUANTIZE, FUSE], ["LRP101"]),
        ([LOADED_FP8, FUSE], ["LRP101"]),
        ([LOADED_BF16, FUSE], []),
        ([QUANTIZE, ATTACH], ["LRP102"]),
        ([LOADED_FP8, ATTACH], ["LRP102"]),
        ([DIFFSYNTH1, ATTACH], ["LRP102"]),
        ([LOADED_BF16, DIFFSYNTH1, ATTACH], ["LRP103"]),
        ([LOADED_FP8, DIFFSYNTH1], []),
        ([ATTACH, DIFFSYNTH1], ["LRP110"]),
        ([NOTHING, ATTACH], ["LRP103"]),
        ([NONE], ["LRP104"]),
        ([PART], ["LRP104"]),
        ([COMPILE, ATTACH], ["LRP105"]),
        ([COMPILE, FUSE], ["LRP105"]),
        ([HOTSWAP, ATTACH, COMPILE, ATTACH], ["LRP105"]),
        ([OFFLOAD, FUSE], ["LRP106"]),
        ([OFFLOAD, ATTACH], []),
        ([ATTACH, QUANTIZE], ["LRP107", "LRP110"]),
        ([ATTACH, FILTERED], ["LRP110"]),
        ([ATTACH, FUSE, QUANTIZE], []),
        ([ATTACH, DETACH, QUANTIZE], []),
        ([A, A], ["LRP108"]),
        ([A, B], []),
        ([A, UNFUSE, A], []),
        ([FUSE, FUSE], []),
        ([EVERY_ONE, EVERY_ONE], ["LRP108"]),
        ([EVERY_ONE, UNFUSE, EVERY_ONE], []),
        ([EVERY_ONE, SELECT, EVERY_ONE], []),
        ([ATTACH, EVERY_ONE, ATTACH, EVERY_ONE], []),
        ([EVERY_ONE, FUSE], []),
        ([ATTACH, FUSE, UNFUSE, QUANTIZE], ["LRP107", "LRP110"]),
        ([ATTACH, FUSE, DETACH, QUANTIZE], []),
        ([ATTACH, DETACH, HOTSWAP], []),
        ([ATTACH, FUSE, HOTSWAP], ["LRP109"]),
        ([QUANTIZE, DEQUANTIZE, FUSE], []),
        ([QUANTIZE, DEQUANTIZE, QUANTIZE, FUSE], ["LRP101"]),
        ([OFFLOAD, ONLOAD, FUSE], []),
        ([OFFLOAD, ONLOAD, OFFLOAD, FUSE], ["LRP106"]),
        ([ATTACH, HOTSWAP], ["LRP109"]),
    ],
)
def test_orders(events: list[Event], codes: list[str]) -> None:
    assert broken(*events) == codes


MESSAGES = {
    "LRP101": (
        [QUANTIZE, FUSE],
        "pipe.fuse fuses a LoRA into weights that pipe.quantize quantized ({0}): it fades",
    ),
    "LRP102": (
        [QUANTIZE, ATTACH],
        "pipe.attach attaches a LoRA to a model that pipe.quantize quantized ({0}): right, but slow",
    ),
    "LRP103": ([NOTHING], "pipe.quantize quantized none of 840 layers"),
    "LRP104": ([PART], "pipe.fuse changed 800 of the 840 layers that the LoRA is for"),
    "LRP105": ([COMPILE, FUSE], "pipe.fuse changes a model that pipe.compile compiled ({0})"),
    "LRP106": ([OFFLOAD, FUSE], "pipe.fuse fuses a LoRA after pipe.offload offloaded the model ({0})"),
    "LRP107": ([ATTACH, QUANTIZE], "pipe.quantize quantizes over the LoRA that pipe.attach attached ({0})"),
    "LRP108": ([A, A], "pipe.fuse fuses a again, after pipe.fuse ({0})"),
    "LRP109": ([ATTACH, HOTSWAP], "pipe.hotswap comes after pipe.attach loaded an adapter ({0})"),
    "LRP110": (
        [ATTACH, FILTERED],
        "pipe.quantize quantizes while the LoRA of pipe.attach stays attached ({0})",
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_message_names_both_calls_and_the_corrected_order(rule: Rule) -> None:
    events, message = MESSAGES[rule.code]
    found = rule.check(events[:-1], events[-1])
    assert found is not None
    assert found.message == f"{message.format(events[0].where)}; {rule.fix}"
    assert (found.code, found.name, found.event) == (rule.code, rule.name, events[-1])


def test_what_is_known_to_have_loaded_plain_weights_is_told_by_diffsynth_1() -> None:
    (found,) = check([LOADED_BF16], DIFFSYNTH1)
    assert found.message.startswith(
        f"pipe.quantize quantizes nothing: pipe.load did not load fp8 weights ({LOADED_BF16.where})"
    )


def test_no_adapter_matched_is_said() -> None:
    (found,) = check([], NONE)
    assert found.message.startswith("pipe.attach changed no layer: the LoRA has no effect; ")


def test_fusing_all_again_is_said_without_a_name() -> None:
    (found,) = check([EVERY_ONE], EVERY_ONE)
    assert found.message.startswith(f"pipe.fuse fuses what is fused again, after pipe.fuse ({EVERY_ONE.where}); ")


def test_the_table_is_whole() -> None:
    assert [rule.code for rule in RULES] == [f"LRP{number}" for number in range(101, 111)]
    assert {"LRP110"} == set(EVERY) - DEFAULT
    for rule in RULES:
        assert rule.__doc__
        assert bool(rule.invalid) == bool(rule.valid) == rule.static


@pytest.mark.parametrize(("third", "codes"), [("a", ["LRP108"]), ("b", ["LRP108"]), ("c", [])])
def test_a_name_that_several_adapters_have_had(third: str, codes: list[str]) -> None:
    where = Place("app.py", 1)  # in a loop the events of the rounds are equal
    events = [
        event
        for source in ("a", "b", third)
        for event in (
            Event(Kind.ATTACH, "pipe.attach", where, adapter="style", source=source),
            Event(Kind.FUSE, "pipe.fuse", where, adapter="style"),
            Event(Kind.DETACH, "pipe.detach", where),
        )
    ]
    assert broken(*events) == codes
