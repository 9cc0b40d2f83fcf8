"""The table of rules, used by the recorder and by the linter."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pytest_loraperf.order.events import Event
from pytest_loraperf.order.rules.base import History, Rule, Violation
from pytest_loraperf.order.rules.lrp101_fuse_into_quantized import FuseIntoQuantized
from pytest_loraperf.order.rules.lrp102_attach_after_quantize import AttachAfterQuantize
from pytest_loraperf.order.rules.lrp103_quantize_without_effect import QuantizeWithoutEffect
from pytest_loraperf.order.rules.lrp104_lora_without_effect import LoraWithoutEffect
from pytest_loraperf.order.rules.lrp105_lora_after_compile import LoraAfterCompile
from pytest_loraperf.order.rules.lrp106_fuse_after_offload import FuseAfterOffload
from pytest_loraperf.order.rules.lrp107_quantize_over_attached_lora import QuantizeOverAttachedLora
from pytest_loraperf.order.rules.lrp108_fused_twice import FusedTwice
from pytest_loraperf.order.rules.lrp109_hotswap_late import HotswapLate
from pytest_loraperf.order.rules.lrp110_unfused_before_quantize import UnfusedBeforeQuantize

UNREADABLE = "LRP001"
"""The code of a file that cannot be parsed: a finding, though it breaks no rule on the order."""

RULES: tuple[Rule, ...] = (
    FuseIntoQuantized(),
    AttachAfterQuantize(),
    QuantizeWithoutEffect(),
    LoraWithoutEffect(),
    LoraAfterCompile(),
    FuseAfterOffload(),
    QuantizeOverAttachedLora(),
    FusedTwice(),
    HotswapLate(),
    UnfusedBeforeQuantize(),
)
DEFAULT = frozenset(rule.code for rule in RULES if rule.default)


def check(history: History, event: Event, codes: Collection[str] = DEFAULT) -> Iterator[Violation]:
    """Yield what is wrong with doing this after that, by the rules of these codes."""
    for rule in RULES:
        if rule.code in codes:
            found = rule.check(history, event)
            if found is not None:
                yield found
