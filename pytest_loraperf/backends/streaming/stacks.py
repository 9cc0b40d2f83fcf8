"""Stacks: the lists of like blocks that most of a model's weights are in, called one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pytest_loraperf.gpu.tensors import tensors_of


@dataclass(frozen=True)
class Stack:
    """A list of blocks by their names in the model, in the order in which they are called."""

    blocks: tuple[tuple[str, nn.Module], ...]


def stacks_of(module: nn.Module) -> list[Stack]:
    """Return the lists of two or more modules of one class that hold weights, none of them inside of another's."""
    found: list[Stack] = []
    inside: tuple[str, ...] = ()
    for name, part in module.named_modules():
        if not isinstance(part, nn.ModuleList) or name.startswith(inside or ("\0",)):
            continue
        if len(part) > 1 and len({type(block) for block in part}) == 1 and all(map(_holds_weights, part)):
            found.append(Stack(tuple((f"{name}.{index}", block) for index, block in enumerate(part))))
            inside = (*inside, f"{name}.")
    return found


def _holds_weights(block: nn.Module) -> bool:
    return next(block.parameters(), None) is not None


def split(
    module: nn.Module, stacks: Sequence[Stack], waiting: Collection[int] = ()
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return the tensors of each block, one stack after the other, and those of the rest of the module.

    A tensor that several blocks or a block and the rest share is of the rest: it has to be there for all of them.
    Those on the meta device are left out, but for the ones that are ``waiting`` to be drawn, by their ids.
    """
    blocks = [block for stack in stacks for _, block in stack.blocks]
    own = [list(_each_once(block, waiting)) for block in blocks]
    users = Counter(id(tensor) for tensors in own for tensor in tensors)
    users.update(id(tensor) for tensor in _each_once(module, waiting, without=blocks))
    kept = [[tensor for tensor in tensors if users[id(tensor)] == 1] for tensors in own]
    moved = {id(tensor) for tensors in kept for tensor in tensors}
    return kept, [tensor for tensor in _each_once(module, waiting) if id(tensor) not in moved]


def _each_once(module: nn.Module, waiting: Collection[int], without: Sequence[nn.Module] = ()) -> Iterator[Tensor]:
    """Yield the tensors with memory, but for those that only the modules left out hold."""
    skipped = {id(part) for block in without for part in block.modules()}
    seen: set[int] = set()
    for part in module.modules():
        if id(part) in skipped:
            continue
        for tensor in tensors_of(part, recurse=False):
            if id(tensor) not in seen and tensor.numel() and (not tensor.is_meta or id(tensor) in waiting):
                seen.add(id(tensor))
                yield tensor


def size_of(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of the tensors' elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
