"""The strategy table, at every width."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_results import EIGHT, MACHINE, with_strategy

from pytest_loraperf.report.results import Latency, OutputComparison, Ratio, Results, StrategyResult, Vram
from pytest_loraperf.report.table import MIN_WIDTH, strategy_table, with_something
from pytest_loraperf.report.terminal import notes

WIDE = """\
strategy              steps                                          set-up s  s/generation         interval   ratio  VRAM set-up  VRAM resident  VRAM runtime  rel. L2  effect       gain       verdict
standard_lora         attach                                             1.25         1.128    [1.117–1.139]       –      39.9 GB        39.2 GB       40.3 GB   0.0000    1.00  0.99–1.00             –
quantize_then_lora ✗  quantize[torchao_fp8_w8a8] → attach → compile      3.75         1.861    [1.842–1.880]   1.65×      20.9 GB        20.1 GB       21.2 GB   0.0111    0.86  0.99–1.00             –
lora_then_quantize    attach → quantize[torchao_fp8_w8a8] → compile      3.75         1.870    [1.851–1.889]   1.66×      20.9 GB        20.1 GB       21.2 GB   0.0111    0.86  0.99–1.00             –
fused                 fuse                                               1.25        0.8630  [0.8544–0.8716]   0.77×      39.2 GB        38.1 GB       39.2 GB   0.0047    0.95  0.99–1.00          PASS
fused_then_quantize   fuse → quantize[torchao_fp8_w8a8] → compile        3.75        0.4900  [0.4851–0.4949]   0.43×      19.8 GB        19.1 GB         20 GB   0.0116    0.83  0.99–1.00             –
low_vram              attach → quantize[fp8_storage] → offload           3.75         50.60    [50.09–51.11]  44.86×       2.9 GB         1.1 GB        6.9 GB   0.0339    0.89  0.99–1.00  INCONCLUSIVE
low_vram_optimized    fuse → quantize[fp8_storage] → offload             3.75         1.500    [1.485–1.515]   1.33×       1.9 GB         614 MB        1.8 GB   0.0341    0.89  0.99–1.00             –
quantize_then_fuse ✗  quantize[fp8_storage] → fuse                       2.50         1.600    [1.584–1.616]   1.42×      20.9 GB        19.1 GB         20 GB   0.0379    0.71  0.03–1.00          FAIL
ratio: time over that of standard_lora
rel. L2: distance of the output to that of standard_lora
effect: the share of the LoRA's effect on the output that is kept
gain: the share of the LoRA's intended effect in a layer, the lowest and the median
torchao_fp8_w8a8: fastest here (quantize_then_lora, lora_then_quantize, fused_then_quantize)
fp8_storage: halves what is moved (low_vram, low_vram_optimized, quantize_then_fuse)
✗ quantize_then_lora is a mistake: right but slow
✗ quantize_then_fuse is a mistake: the LoRA fades
"""
MEDIUM = """\
strategy              s/generation         interval   ratio  VRAM runtime       verdict
standard_lora                1.128    [1.117–1.139]       –       40.3 GB             –
quantize_then_lora ✗         1.861    [1.842–1.880]   1.65×       21.2 GB             –
lora_then_quantize           1.870    [1.851–1.889]   1.66×       21.2 GB             –
fused                       0.8630  [0.8544–0.8716]   0.77×       39.2 GB          PASS
fused_then_quantize         0.4900  [0.4851–0.4949]   0.43×         20 GB             –
low_vram                     50.60    [50.09–51.11]  44.86×        6.9 GB  INCONCLUSIVE
low_vram_optimized           1.500    [1.485–1.515]   1.33×        1.8 GB             –
quantize_then_fuse ✗         1.600    [1.584–1.616]   1.42×         20 GB          FAIL
ratio: time over that of standard_lora
torchao_fp8_w8a8: fastest here (quantize_then_lora, lora_then_quantize, fused_then_quantize)
fp8_storage: halves what is moved (low_vram, low_vram_optimized, quantize_then_fuse)
✗ quantize_then_lora is a mistake: right but slow
✗ quantize_then_fuse is a mistake: the LoRA fades
"""
NARROW = """\
strategy      s/generation       verdict
standa…_lora         1.128             –
quanti…ora ✗         1.861             –
lora_t…ntize         1.870             –
fused               0.8630          PASS
fused_…ntize        0.4900             –
low_vram             50.60  INCONCLUSIVE
low_vr…mized         1.500             –
quanti…use ✗         1.600          FAIL
torchao_fp8_w8a8: fastest here
  (quantize_then_lora,
  lora_then_quantize,
  fused_then_quantize)
fp8_storage: halves what is moved
  (low_vram, low_vram_optimized,
  quantize_then_fuse)
✗ quantize_then_lora is a mistake: right
  but slow
✗ quantize_then_fuse is a mistake: the
  LoRA fades
"""


def table(results: Results, width: int) -> str:
    return "\n".join(strategy_table(results, width)) + "\n"


@pytest.mark.parametrize(("width", "expected"), [(220, WIDE), (100, MEDIUM), (40, NARROW)])
def test_whole_table(width: int, expected: str) -> None:
    assert table(EIGHT, width) == expected


def titles(width: int) -> list[str]:
    return [title.strip() for title in next(strategy_table(EIGHT, width)).split("  ") if title]


def test_columns_are_dropped_in_order() -> None:
    dropped: list[str] = []
    for width in range(250, MIN_WIDTH, -1):
        shown = titles(width)
        dropped += [
            column.title
            for column in with_something(EIGHT)
            if column.title not in shown and column.title not in dropped
        ]
    assert dropped == [
        "effect",
        "gain",
        "rel. L2",
        "set-up s",
        "VRAM set-up",
        "VRAM resident",
        "steps",
        "interval",
        "VRAM runtime",
        "ratio",
    ]


def test_narrower_than_the_least_width_is_the_least_width() -> None:
    assert table(EIGHT, 1) == table(EIGHT, MIN_WIDTH)


def test_nothing_measured_is_one_line_that_says_what_to_do() -> None:
    nothing = replace(EIGHT, strategies={})
    (line,) = strategy_table(nothing, 150)
    assert line.startswith("nothing was measured: give a test a strategy's fixture and a marker such as ")
    assert line.endswith("latency_budget or vram_budget (see the README)")
    assert all(len(line) <= 40 for line in strategy_table(nothing, 40))


def row(results: Results, name: str, width: int = 250) -> list[str]:
    line = next(line for line in strategy_table(results, width) if line.startswith(name))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_strategy_without_figures_shows_dashes() -> None:
    assert row(with_strategy("built", steps=("fuse",)), "built") == ["built", "fuse", *["–"] * 11]


def test_error_stands_in_the_row_and_below() -> None:
    lines = list(strategy_table(with_strategy("broken", error="CUDA out of memory\nTried \x1b[31m2 GB"), 250))
    assert "error" in next(line for line in lines if line.startswith("broken"))
    assert lines[-1] == "error in broken: CUDA out of memory Tried ?[31m2 GB"


def test_ratio_measured_in_turns_is_marked() -> None:
    results = with_strategy("fused", ratio=Ratio("standard_lora", 0.77, (0.7, 0.8), interleaved=False))
    assert "0.77×~" in row(results, "fused")
    assert "~ measured in turns, not in the same rounds\n" in table(results, 200)
    assert "~ measured" not in table(EIGHT, 200)
    assert "~ measured" not in table(results, 40)  # the column is not there


def test_counted_bytes_are_not_called_vram() -> None:
    counted = replace(EIGHT, machine=replace(MACHINE, memory_kind="tensor bytes"))
    assert "VRAM columns: tensor bytes (no CUDA)\n" in table(counted, 200)
    assert "no CUDA" not in table(EIGHT, 200)
    assert "no CUDA" not in table(counted, 40)  # no column of sizes is there


def test_mark_of_a_mistake_survives_a_cut_name() -> None:
    assert row(with_strategy("x" * 80, mistake="why"), "xxx")[0] == "x" * 20 + "…" + "x" * 17 + " ✗"


def test_cut_names_can_be_told_apart() -> None:
    names = [line.split("  ")[0] for line in table(EIGHT, 40).splitlines()[1 : 1 + len(EIGHT.strategies)]]
    assert len(set(names)) == len(names)


def test_names_of_one_model_and_of_another_can_be_told_apart() -> None:
    name = "fused_then_quantize (synthetic:full)"
    assert row(with_strategy(name), name)[0] == name


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\r\n b", "a\u2028b", "a\x85b"])
def test_space_that_breaks_lines_becomes_a_blank(name: str) -> None:
    assert row(with_strategy(name), "a b")[0] == "a b"


@pytest.mark.parametrize("name", ["a\x1bb", "a\u202eb", "a\u200bb", "a\x00b", "a\ud800b"])
def test_letter_that_moves_the_cursor_is_replaced(name: str) -> None:
    assert row(with_strategy(name), "a?b")[0] == "a?b"


words = st.text(max_size=120)
numbers = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.none() | st.integers(0, 2**200)
strategies = st.builds(
    StrategyResult,
    steps=st.lists(words, max_size=4).map(tuple),
    scheme=st.none() | words,
    scheme_reason=st.none() | words,
    mistake=st.none() | words,
    latency=st.none() | st.builds(Latency, numbers, st.tuples(numbers, numbers), st.integers()),
    ratio=st.none() | st.builds(Ratio, words, numbers, st.tuples(numbers, numbers)),
    vram=st.builds(Vram, sizes, sizes, sizes, sizes),
    output=st.none() | st.builds(OutputComparison, words, numbers, numbers, numbers, numbers, numbers),
    error=st.none() | words,
)


@given(st.dictionaries(words, strategies, max_size=4), words, st.integers(40, 250))
def test_no_line_is_wider_or_more_than_a_line(
    found: dict[str, StrategyResult], memory_kind: str, width: int
) -> None:
    results = replace(EIGHT, machine=replace(MACHINE, memory_kind=memory_kind), strategies=found)
    lines = list(strategy_table(results, width))
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() and line for line in lines)
    assert len(lines) > len(found)


def test_an_option_to_paste_is_not_cut_at_its_hyphens() -> None:
    note = (
        f"warning: {'word ' * 8}make it with: pytest --loraperf-baseline=baseline.json --loraperf-update-baseline"
    )
    lines = list(notes([note], 72))
    assert len(lines) > 1
    assert all(len(line) <= 72 for line in lines)
    assert {"--loraperf-baseline=baseline.json", "--loraperf-update-baseline"} <= set(" ".join(lines).split())
