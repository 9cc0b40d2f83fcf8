from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from pytest_loraperf.measure.difference import difference, effect_kept, image_difference


def test_known_distances() -> None:
    found = difference(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
    assert found.rel_l2 == pytest.approx(1 / 5)
    assert found.max_abs == 1.0
    assert found.cosine == pytest.approx((9 + 20) / (5 * math.sqrt(34)))
    assert found.psnr == pytest.approx(20 * math.log10(1 / math.sqrt(0.5)))


def test_equal_outputs() -> None:
    found = difference(torch.ones(4), torch.ones(4))
    assert (found.rel_l2, found.max_abs, found.psnr) == (0.0, 0.0, math.inf)
    assert found.cosine == pytest.approx(1.0)


def test_nan_is_near_nothing() -> None:
    found = difference(torch.tensor([math.nan, 1.0]), torch.ones(2))
    assert not found.rel_l2 <= math.inf


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_value_is_as_far_as_can_be(value: float) -> None:
    found = difference(torch.tensor([value, 1.0]), torch.tensor([1.0, 2.0]))
    assert (found.rel_l2, found.max_abs, found.psnr) == (math.inf, math.inf, -math.inf)


def test_bf16_is_compared_without_its_rounding() -> None:
    x = torch.full((1000,), 1.0078125, dtype=torch.bfloat16)
    assert difference(x, torch.ones(1000)).rel_l2 == pytest.approx(0.0078125)


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(2,\) and \(3,\)"):
        difference(torch.ones(2), torch.ones(3))


def test_images_by_their_8_bit_values() -> None:
    found = image_difference(Image.new("RGB", (4, 4), (10, 10, 10)), Image.new("RGB", (4, 4), (20, 20, 20)))
    assert found.max_abs == 10
    assert found.psnr == pytest.approx(20 * math.log10(255 / 10))


def test_videos_by_all_their_frames() -> None:
    black, grey = (Image.new("RGB", (4, 4), (value,) * 3) for value in (0, 51))
    found = image_difference([black, grey], [black, black])
    assert found.max_abs == 51
    assert found.psnr == pytest.approx(20 * math.log10(5 * math.sqrt(2)))
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 4, 4, 3\) and \(1, 4, 4, 3\)"):
        image_difference([black, grey], [black])


@pytest.mark.parametrize(("share", "kept"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_effect_is_the_share_of_the_way_from_the_control(share: float, kept: float) -> None:
    control = torch.randn(100, generator=torch.Generator().manual_seed(0))
    effect = torch.randn(100, generator=torch.Generator().manual_seed(1))
    assert effect_kept(control + share * effect, control + effect, control) == pytest.approx(kept, abs=1e-6)


def test_without_an_effect_there_is_no_share() -> None:
    assert math.isnan(effect_kept(torch.ones(3), torch.ones(3), torch.ones(3)))
