"""The tensors of a module that take memory, whatever holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

LORA = ("lora_A_weights", "lora_B_weights")
"""The lists in which DiffSynth's layers keep LoRA weights: neither Parameters nor buffers."""


def tensors_of(module: Any, *, recurse: bool = True) -> Iterator[Tensor]:
    """Yield the tensors that a module holds, and those in it: parameters, buffers, LoRA; some perhaps twice."""
    for part in module.modules() if recurse else (module,):
        lora = (tensor for name in LORA for tensor in vars(part).get(name, ()))
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False), *lora):
            yield from _parts(tensor)


def _parts(tensor: Any) -> Iterator[Tensor]:
    """Yield the tensors that have memory of their own: those inside of a wrapper such as torchao's."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    else:
        yield tensor
