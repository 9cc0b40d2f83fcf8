"""Functions that CUDA carries out otherwise than the CPU does, or that ask for values nobody reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional, init

FLASH_DTYPES = (torch.float16, torch.bfloat16)
FLASH_WIDEST = 256
"""The widest head that the flash kernel takes."""
FLASH_STEP = 8
"""Heads are padded to a multiple of so many elements."""
ON_CPU = functional.scaled_dot_product_attention
DATA = Tensor.data
INITIAL = [name for name in vars(init) if name.endswith("_") and not name.startswith("_")]
"""Functions that give a tensor its initial values: kaiming_uniform_, zeros_, …"""

aten = torch.ops.aten


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Let attention be that of CUDA, ``tensor.data = …`` change the device, and nothing need values."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(functional, "scaled_dot_product_attention", attention))
        stack.enter_context(patch.object(FakeTensor, "data", property(_data, _set_data), create=True))
        stack.enter_context(patch.object(FakeTensor, "__deepcopy__", _copied, create=True))
        stack.enter_context(patch.object(FakeTensor, "numpy", _numpy, create=True))
        # What a layer starts with is overwritten by its weights, and has no values here anyway.
        for name in INITIAL:
            stack.enter_context(patch.object(init, name, _left_as_it_is))
        yield


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Allocate what torch's kernels for CUDA do, by flash where it can, else by the memory-efficient kernel.

    The tensors are (…, heads, tokens, width). Torch chooses by the hardware, which is not there; neither kernel
    makes the matrix of tokens × tokens.
    """
    options: dict[str, Any] = {"scale": scale or 1 / math.sqrt(query.shape[-1])}
    if query.device.type != "cuda":
        return ON_CPU(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa=enable_gqa, **options)
    if attn_mask is None and query.dtype in FLASH_DTYPES and query.shape[-1] <= FLASH_WIDEST:
        return _flash(query, key, value, dropout_p, is_causal, options)
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(repeats, -3) for each in (key, value))
    if attn_mask is not None:
        attn_mask = _bias(attn_mask, query.dtype).expand(*query.shape[:-1], key.shape[-2])
    efficient = aten._scaled_dot_product_efficient_attention  # noqa: SLF001 - its only name
    output: Tensor = efficient(query, key, value, attn_mask, False, dropout_p, is_causal, **options)[0]
    return output


def _flash(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, causal: bool, options: dict[str, Any]
) -> Tensor:
    width = query.shape[-1]
    if width % FLASH_STEP:
        missing = -width % FLASH_STEP
        query, key, value = (functional.pad(each, (0, missing)) for each in (query, key, value))
    flash = aten._scaled_dot_product_flash_attention  # noqa: SLF001 - its only name
    output: Tensor = flash(query, key, value, dropout, causal, **options)[0]
    return output[..., :width] if output.shape[-1] != width else output


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores: torch makes it of a mask that says which tokens are seen."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), -math.inf)


def _data(tensor: FakeTensor) -> Tensor:
    return DATA.__get__(tensor)  # type: ignore[attr-defined, no-any-return]  # a property, typed as a Tensor


def _set_data(tensor: FakeTensor, value: FakeTensor) -> None:
    DATA.__set__(tensor, value)  # type: ignore[attr-defined]  # the same
    tensor.fake_device = value.fake_device


def _copied(tensor: FakeTensor, memo: dict[int, Any]) -> Tensor:
    """Return a copy; torch's own way looks for the address of the data, and warns that there is none."""
    copied = memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    if isinstance(tensor, torch.nn.Parameter):
        copied._is_param = True  # noqa: SLF001 - how torch marks a Parameter of another class
    return copied


def _numpy(tensor: FakeTensor, **_: Any) -> Any:
    """Return an array of the same shape: images are made of it, and never looked at."""
    return np.zeros(tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def _left_as_it_is(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor
