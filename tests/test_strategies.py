from __future__ import annotations

from typing import Any, cast

import pytest

from pytest_loraperf.errors import StrategyError
from pytest_loraperf.strategies import (
    ATTACH,
    COMPILE,
    FUSE,
    NO_LORA,
    QUANTIZE,
    SHIPPED,
    Step,
    StepKind,
    Strategies,
    Strategy,
    offload,
)


def test_the_eight_strategies_and_the_control() -> None:
    orders = {s.name: " ".join(step.kind for step in s.steps) for s in (*SHIPPED, NO_LORA)}
    assert orders == {
        "standard_lora": "attach",
        "quantize_then_lora": "quantize attach",
        "lora_then_quantize": "attach quantize",
        "fused": "fuse",
        "fused_then_quantize": "fuse quantize",
        "low_vram": "attach quantize offload",
        "low_vram_optimized": "fuse quantize offload",
        "quantize_then_fuse": "quantize fuse",
        "no_lora": "",
    }


def test_mistakes_are_the_two_that_quantize_first() -> None:
    assert [s.name for s in SHIPPED if s.mistake] == ["quantize_then_lora", "quantize_then_fuse"]
    assert [s.name for s in SHIPPED if s.fuses_after_quantizing] == ["quantize_then_fuse"]


def test_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(StrategyError, match=r"unknown strategy 'fuzed'; did you mean fused\? The strategies are "):
        Strategies().find("fuzed")


def test_unknown_strategy_far_from_all_lists_them() -> None:
    with pytest.raises(StrategyError, match=r"^unknown strategy 'zzz'. The strategies are standard_lora, "):
        Strategies().find("zzz")


def test_select() -> None:
    known = Strategies()
    assert [s.name for s in known.select("fused, no_lora")] == ["fused", "no_lora"]
    assert [s.name for s in known.select("all")] == [s.name for s in SHIPPED]
    with pytest.raises(StrategyError, match="no strategy in ' , '; write all, or names"):
        known.select(" , ")


def test_a_user_strategy_is_found_and_part_of_all() -> None:
    mine = Strategy("mine", (FUSE, COMPILE))
    known = Strategies([mine])
    assert known.find("mine") is mine
    assert mine in known.select("all")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Strategy("fused", (ATTACH,)), "strategy fused: the name is taken; choose another"),
        ("mine", "pytest_loraperf_strategies: 'mine' is not a Strategy"),
    ],
)
def test_what_cannot_be_registered(wrong: object, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        Strategies().register(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step("melt"), "step: got 'melt'; the steps are attach, fuse, quantize, offload, compile"),
        (lambda: Step(StepKind.FUSE, scheme="fp8_storage"), "step fuse: only quantize and offload take a scheme"),
        (lambda: Step(StepKind.FUSE, card=1), "step fuse: only offload takes a card size"),
        (lambda: Strategy("my strategy", ()), "strategy 'my strategy': a name is letters"),
        (lambda: Strategy("all", ()), "strategy all: the name stands for all strategies; choose another"),
        (lambda: Strategy("mine", cast("Any", FUSE)), "strategy mine: the steps .* are no tuple; write"),
        (
            lambda: Strategy("mine", cast("Any", ("fuse",))),
            r"strategy mine: 'fuse' is not a Step; write Step\('fuse'\)",
        ),
    ],
)
def test_ill_formed_steps_and_strategies(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(StrategyError, match=message):
        make()


def test_a_step_may_be_given_by_its_word() -> None:
    assert Step("quantize", scheme="fp8_compute").kind is StepKind.QUANTIZE
    assert str(Step(StepKind.QUANTIZE, scheme="fp8_compute")) == "quantize[fp8_compute]"


def test_scheme_fills_only_steps_that_name_none() -> None:
    own = Step(StepKind.QUANTIZE, scheme="fp8_compute")
    strategy = Strategy("mine", (FUSE, QUANTIZE, own)).with_scheme("fp8_storage")
    assert [step.scheme for step in strategy.steps] == [None, "fp8_storage", "fp8_compute"]


def test_compile_is_added_last_and_once() -> None:
    fused = Strategy("mine", (FUSE,))
    assert fused.compiled().steps == (FUSE, COMPILE)
    assert fused.compiled().compiled() == fused.compiled()
    assert fused.compiled().without_compile() == fused


def test_offload_is_for_a_card() -> None:
    assert offload("8GB").card == 8 * 2**30
