"""The table in Markdown, and its place in a page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_results import EIGHT, MACHINE, with_strategy

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.markdown import markdown_table, replace_block
from pytest_loraperf.report.table import NOTHING, with_something

TABLE = r"""
| strategy | steps | set-up s | s/generation | interval | ratio | VRAM set-up | VRAM resident | VRAM runtime | rel. L2 | effect | gain | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| `standard_lora` | `attach` | 1.25 | 1.128 | [1.117–1.139] | – | 39.9 GB | 39.2 GB | 40.3 GB | 0.0000 | 1.00 | 0.99–1.00 | – |
| `quantize_then_lora ✗` | `quantize[torchao_fp8_w8a8] → attach → compile` | 3.75 | 1.861 | [1.842–1.880] | 1.65× | 20.9 GB | 20.1 GB | 21.2 GB | 0.0111 | 0.86 | 0.99–1.00 | – |
| `lora_then_quantize` | `attach → quantize[torchao_fp8_w8a8] → compile` | 3.75 | 1.870 | [1.851–1.889] | 1.66× | 20.9 GB | 20.1 GB | 21.2 GB | 0.0111 | 0.86 | 0.99–1.00 | – |
| `fused` | `fuse` | 1.25 | 0.8630 | [0.8544–0.8716] | 0.77× | 39.2 GB | 38.1 GB | 39.2 GB | 0.0047 | 0.95 | 0.99–1.00 | PASS |
| `fused_then_quantize` | `fuse → quantize[torchao_fp8_w8a8] → compile` | 3.75 | 0.4900 | [0.4851–0.4949] | 0.43× | 19.8 GB | 19.1 GB | 20 GB | 0.0116 | 0.83 | 0.99–1.00 | – |
| `low_vram` | `attach → quantize[fp8_storage] → offload` | 3.75 | 50.60 | [50.09–51.11] | 44.86× | 2.9 GB | 1.1 GB | 6.9 GB | 0.0339 | 0.89 | 0.99–1.00 | INCONCLUSIVE |
| `low_vram_optimized` | `fuse → quantize[fp8_storage] → offload` | 3.75 | 1.500 | [1.485–1.515] | 1.33× | 1.9 GB | 614 MB | 1.8 GB | 0.0341 | 0.89 | 0.99–1.00 | – |
| `quantize_then_fuse ✗` | `quantize[fp8_storage] → fuse` | 2.50 | 1.600 | [1.584–1.616] | 1.42× | 20.9 GB | 19.1 GB | 20 GB | 0.0379 | 0.71 | 0.03–1.00 | FAIL |

- synthetic:full on H100, driver 580.1, torch 2.11.0, diffsynth 2.1.12, pytest-loraperf 0.1.0, 2026-11-23T18:00:00+00:00
- ratio: time over that of standard\_lora
- rel. L2: distance of the output to that of standard\_lora
- effect: the share of the LoRA's effect on the output that is kept
- gain: the share of the LoRA's intended effect in a layer, the lowest and the median
- torchao\_fp8\_w8a8: fastest here (quantize\_then\_lora, lora\_then\_quantize, fused\_then\_quantize)
- fp8\_storage: halves what is moved (low\_vram, low\_vram\_optimized, quantize\_then\_fuse)
- ✗ quantize\_then\_lora is a mistake: right but slow
- ✗ quantize\_then\_fuse is a mistake: the LoRA fades
- ranking, holds here: fused\_then\_quantize is faster than quantize\_then\_lora (0.26×, 0.09–0.81), low\_vram\_optimized is faster than low\_vram (0.03×, 0.01–0.09), lora\_then\_quantize is smaller than standard\_lora by 40% (21.2 GB of 40.3 GB), fused\_then\_quantize is smaller than fused by 40% (20 GB of 39.2 GB), low\_vram\_optimized is smaller than low\_vram (1.8 GB of 6.9 GB), low\_vram runs in 8 GB (6.9 GB), low\_vram\_optimized runs in 6 GB (1.8 GB)
- ranking, cannot tell: fused is faster than standard\_lora (0.77×, 0.25–2.34), lora\_then\_quantize is faster than standard\_lora (1.66×, 0.54–5.07), lora\_then\_quantize is faster than quantize\_then\_lora (1.00×, 0.33–3.08), fused\_then\_quantize is faster than fused (0.57×, 0.19–1.74)
""".lstrip()
PAGE = "# Title\n<!-- loraperf:h100 -->\nold\n<!-- /loraperf:h100 -->\nThe end.\n"


def test_whole_table() -> None:
    assert markdown_table(EIGHT) + "\n" == TABLE


def test_several_results_come_under_their_titles() -> None:
    both = markdown_table([("H100_1", EIGHT), ("CPU", replace(EIGHT, strategies={}))])
    assert both == f"**H100\\_1**\n\n{TABLE}\n**CPU**\n\n{NOTHING}"


def test_machine_without_a_driver() -> None:
    text = markdown_table(replace(EIGHT, machine=replace(MACHINE, driver=None)))
    assert "on H100, torch 2.11.0" in text


def test_text_of_a_user_stays_text() -> None:
    text = markdown_table(with_strategy("a|`b`", error="<b>*x*_y_ [z](u) &lt; #1"))
    assert r"| `a\|'b'` |" in text
    assert r"\<b\>\*x\*\_y\_ \[z\](u) \&lt; \#1" in text


@given(st.text(max_size=60), st.lists(st.text(max_size=30), max_size=3))
def test_every_row_has_every_cell(name: str, steps: list[str]) -> None:
    lines = markdown_table(with_strategy(name, steps=tuple(steps))).split("\n\n")[0].replace(r"\|", "").split("\n")
    assert {line.count("|") for line in lines} == {len(with_something(EIGHT)) + 1}


def test_block_is_replaced() -> None:
    assert replace_block(PAGE, "h100", "\nnew \\1\n") == PAGE.replace("old", "new \\1")


body_text = st.text(max_size=50).map(str.strip)


@given(body_text, body_text)
def test_block_is_replaced_whole_and_nothing_else(first: str, second: str) -> None:
    assert replace_block(replace_block(PAGE, "h100", first), "h100", second) == replace_block(PAGE, "h100", second)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- loraperf:h100 -->",
        "<!-- /loraperf:h100 --> <!-- loraperf:h100 -->",
        PAGE + PAGE,
        PAGE + "<!-- loraperf:h100 -->",
        PAGE + "<!-- /loraperf:h100 -->",
        PAGE.replace("h100", "h200"),
    ],
)
def test_page_without_the_one_block_is_refused(page: str) -> None:
    with pytest.raises(LoraperfError) as caught:
        replace_block(page, "h100", "new")
    assert str(caught.value) == (
        "block 'h100': the page must hold <!-- loraperf:h100 --> and then <!-- /loraperf:h100 -->, once each; "
        "write both where it belongs"
    )


def test_body_that_would_end_the_block_is_refused() -> None:
    with pytest.raises(LoraperfError) as caught:
        replace_block(PAGE, "h100", "new <!-- /loraperf:h100 -->")
    assert str(caught.value) == (
        "block 'h100': its text holds <!-- loraperf:h100 --> or <!-- /loraperf:h100 -->; take that line out"
    )
