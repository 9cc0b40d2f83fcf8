"""The linter's table of calls and the recorder's agree on what a call does, but where there is a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pytest_loraperf.order.calls import LOADERS, OPERATIONS, PEFT_MODELS, Form
from pytest_loraperf.order.entry_points import ENTRY_POINTS
from pytest_loraperf.order.events import Kind

Kinds = dict[tuple[str, Form], set[Kind]]

LEFT_TO_THE_WEIGHTS = {
    ("to", Form.METHOD),
    ("autoquant", Form.FUNCTION),
    ("quantize_dynamic", Form.FUNCTION),
    ("quantize_model", Form.FUNCTION),
    ("apply_layerwise_casting", Form.FUNCTION),
}
"""Quantizing that the recorder does not wrap: it sees at the next step that the weights are quantized."""
HOOKS = {("cpu_offload", Form.FUNCTION), ("cpu_offload_with_hook", Form.FUNCTION)}
"""accelerate's: the recorder sees the methods of diffusers that call them, and does not watch accelerate."""
WORDS_ONLY = {("enable_lora_hot_loading", Form.METHOD), ("enable_lora_magic", Form.METHOD)}
"""DiffSynth's: they change nothing but what the linter expects of a later ``load_lora``."""
NOT_IN_SOURCES = {("load", Form.METHOD), ("enable_cpu_offload", Form.METHOD)}
"""The linter tells a loader's ``load`` by its receiver; DiffSynth 1.1 calls ``enable_cpu_offload`` by itself."""
ONE_SEES_MORE = {
    ("load_lora", Form.METHOD): {Kind.FUSE},  # the recorder sees whether it fuses by the loader called inside
}


def kinds(rows: Iterable[tuple[str, Form, Kind | None]]) -> Kinds:
    found: Kinds = defaultdict(set)
    for name, form, kind in rows:
        found[name, form] |= set() if kind is None else {kind}
    return found


STATIC = kinds((each.name, each.form, each.kind) for each in OPERATIONS)
RECORDED = kinds(
    (each.name.rpartition(".")[2], Form.METHOD if "." in each.name else Form.FUNCTION, each.kind)
    for each in ENTRY_POINTS
)
LOADING = {(name, Form.METHOD) for name in LOADERS}


def test_a_call_that_both_know_does_the_same() -> None:
    both = STATIC.keys() & RECORDED.keys()
    assert len(both) >= 30
    assert {
        call: STATIC[call] ^ RECORDED[call] for call in both if STATIC[call] != RECORDED[call]
    } == ONE_SEES_MORE


def test_a_call_that_one_of_them_knows_alone_has_a_reason() -> None:
    assert STATIC.keys() - RECORDED.keys() == LEFT_TO_THE_WEIGHTS | HOOKS | WORDS_ONLY
    assert RECORDED.keys() - STATIC.keys() == NOT_IN_SOURCES | LOADING, "what loads has a table of its own"


def test_the_adapters_argument_has_one_name() -> None:
    static = {(each.name, each.form): set(filter(_is_name, each.adapters)) for each in OPERATIONS if each.kind}
    for point in ENTRY_POINTS:
        call = point.name.rpartition(".")[2], Form.METHOD if "." in point.name else Form.FUNCTION
        told = {argument.name for argument in point.adapter}
        if told and static.get(call):
            assert told & static[call], point.name


def test_peft_classes_attach_what_they_load() -> None:
    assert PEFT_MODELS
    assert Kind.ATTACH in RECORDED["from_pretrained", Form.METHOD]


def _is_name(argument: str | int) -> bool:
    return isinstance(argument, str)
