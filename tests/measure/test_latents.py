"""What is kept of latents: the same bytes each time, values of every row, and nothing that is not what it says."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.latents import MOST_BYTES, distance, from_file, keep, not_finite, stride_of, to_file

SMALL = (1, 16, 8, 8)
LARGE = (1, 16, 128, 128)  # Qwen-Image at 1024 x 1024


def latents(shape: tuple[int, ...] = SMALL, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made.to(dtype).to(torch.float32)  # as the bench keeps them


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_is_kept_is_the_same_bytes_and_comes_back(shape: tuple[int, ...], dtype: str) -> None:
    made = latents(shape, dtype=getattr(torch, dtype))
    kept = keep(made, dtype)
    data = to_file(kept)
    assert data == to_file(keep(made.clone(), dtype))
    assert len(data) < MOST_BYTES + 1024
    values = from_file(data, dtype, shape, kept.stride)
    assert torch.equal(values.float(), made.flatten()[:: kept.stride])
    assert distance(made, values, kept.stride, kept.norm).rel_l2 == 0.0


def test_small_latents_are_kept_whole_and_large_ones_are_sampled() -> None:
    assert keep(latents(SMALL), "bfloat16").stride == 1
    kept = keep(latents(LARGE), "bfloat16")
    assert (kept.stride, kept.values.numel()) == (3, math.ceil(math.prod(LARGE) / 3))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.sampled_from([2, 4, 8]))
def test_the_stride_fits_the_file_and_skips_no_row(shape: list[int], itemsize: int) -> None:
    stride = stride_of(shape, itemsize, most=4096)
    assert math.ceil(math.prod(shape) / stride) * itemsize <= 4096 + itemsize
    if stride > 1:
        # Sharing no factor with a side, its multiples take every remainder by it.
        assert all(math.gcd(stride, side) == 1 for side in shape)


def test_a_distance_is_that_of_all_values() -> None:
    one, other = latents(LARGE, 1), latents(LARGE, 1) + 0.1 * latents(LARGE, 2)
    kept = keep(one, "bfloat16")
    whole = float((other - one).norm() / one.norm())
    assert distance(other, kept.values, kept.stride, kept.norm).rel_l2 == pytest.approx(whole, rel=0.02)


def test_a_change_between_the_values_that_are_kept_is_found_by_the_norm() -> None:
    one = latents(LARGE, 1)
    kept = keep(one, "bfloat16")
    other = one.clone().flatten()
    untouched = torch.arange(other.numel()) % kept.stride == 0
    other[~untouched] *= 2
    found = distance(other.reshape(LARGE), kept.values, kept.stride, kept.norm)
    assert found.rel_l2 > 0.5


def test_a_rounded_norm_is_no_difference() -> None:
    one = latents(LARGE, 3)
    kept = keep(one, "bfloat16")
    assert distance(one, kept.values, kept.stride, kept.norm * (1 + 1e-9)).rel_l2 == 0.0


def test_values_that_are_not_finite_are_counted() -> None:
    made = latents()
    assert not_finite(made) == 0
    made[0, 0, 0, :2] = torch.tensor([math.nan, math.inf])
    assert not_finite(made) == 2


def test_a_dtype_that_is_no_float_of_ours() -> None:
    with pytest.raises(
        LoraperfError,
        match=r"^latents of int8 cannot be kept; let the pipeline compute in one of bfloat16, float16, float32, float64$",
    ):
        keep(latents(), "int8")


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"latents": latents()}, buffer)
    return buffer.getvalue()


GOOD = to_file(keep(latents(), "bfloat16"))
BROKEN = latents()
BROKEN[0, 0, 0, 0] = math.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickled(), r"it is a pickle, which can run code when loaded, and is not opened$"),
        (b"", r"it is no safetensors file, or truncated \(.+\)$"),
        (b"not a tensor at all", r"it is no safetensors file, or truncated \(.+\)$"),
        (GOOD[:-10], r"it is no safetensors file, or truncated \(.+\)$"),
        (save({"other": torch.zeros(4)}), r"it holds other, not latents alone$"),
        (save({"latents": torch.zeros(4), "more": torch.zeros(1)}), r"it holds latents, more, not latents alone$"),
        (
            save({"latents": torch.zeros(4)}),
            r"it holds float32 of shape \(4,\), and bfloat16 of \(1024,\) is what its record says$",
        ),
        (
            save({"latents": torch.zeros(4, dtype=torch.bfloat16)}),
            r"it holds bfloat16 of shape \(4,\), and bfloat16 of \(1024,\) is what its record says$",
        ),
        (to_file(keep(BROKEN, "bfloat16")), r"1 of its 1024 values are not finite$"),
    ],
)
def test_a_file_that_is_none_is_said(data: bytes, message: str) -> None:
    with pytest.raises(LoraperfError, match=rf"^{message}"):
        from_file(data, "bfloat16", SMALL, 1)
