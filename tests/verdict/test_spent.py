"""What a phase over its budget spent its memory on: the parts add up, and the largest says what to change."""

from __future__ import annotations

import pytest

from pytest_loraperf.verdict.spent import Spent

GB = 2**30
BLOCKS = "dit.transformer_blocks, 60 blocks"


def test_the_parts_add_up_to_what_is_live() -> None:
    spent = Spent(
        40 * GB, GB, GB // 2, [("vae, the rest (bfloat16)", GB), (f"{BLOCKS} (bfloat16)", 36 * GB)], ("dit", GB)
    )
    assert list(spent.lines()) == [
        f"     36 GB  weights of {BLOCKS} (bfloat16)",
        "      1 GB  weights of vae, the rest (bfloat16)",
        "      1 GB  made by the generation, most of it live in dit",
        "      2 GB  other live tensors",
        "      1 GB  reserved, not in use (fragmentation)",
        "    512 MB  CUDA context and libraries",
        f"largest: the weights of {BLOCKS} (bfloat16); quantize or offload them",
    ]


def test_small_parts_are_put_together() -> None:
    spent = Spent(7 * GB, weights=[(f"part {n} (bfloat16)", GB) for n in range(7)])
    assert [line for line in spent.lines() if "other" in line] == ["      2 GB  weights of other parts"]


def test_where_nothing_is_known_there_is_no_advice() -> None:
    assert list(Spent(GB, 0, 0).lines()) == ["      1 GB  live tensors"]


@pytest.mark.parametrize(
    ("spent", "advice"),
    [
        (Spent(GB, weights=[("dit (float8_e4m3fn)", GB)]), "the weights of dit (float8_e4m3fn); offload them"),
        (
            Spent(3 * GB, weights=[("dit (bfloat16)", GB)], call=("vae", 2 * GB)),
            "what the generation makes; fewer pixels, or cfg 1, make it smaller",
        ),
        (
            Spent(3 * GB, 4 * GB, weights=[("dit (bfloat16)", GB)]),
            "what the allocator holds and nothing uses; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True makes it "
            "smaller",
        ),
        (
            Spent(GB // 4, 0, GB // 2, [("dit (bfloat16)", GB // 4)]),
            "the CUDA context and libraries, which no strategy makes smaller; raise the budget",
        ),
    ],
)
def test_the_largest_says_what_to_change(spent: Spent, advice: str) -> None:
    assert list(spent.lines())[-1] == f"largest: {advice}"
