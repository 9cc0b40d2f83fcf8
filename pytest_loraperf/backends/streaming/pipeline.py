"""The step offload[stream] on a pipeline: what is streamed, what stays, and what is brought when it is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from pytest_loraperf.backends.protocol import StepEffect
from pytest_loraperf.backends.streaming.copies import Copies, copies_for
from pytest_loraperf.backends.streaming.packing import Packed, pack, places_of
from pytest_loraperf.backends.streaming.residency import Residency, Watched
from pytest_loraperf.backends.streaming.stacks import Stack, size_of, split, stacks_of
from pytest_loraperf.backends.streaming.stream import Block, Stream
from pytest_loraperf.backends.undrawn import settle, undrawn
from pytest_loraperf.errors import StrategyError
from pytest_loraperf.gpu.pinned import host_memories
from pytest_loraperf.units import format_size

ATTRIBUTE = "loraperf_offload"


class Visitor:
    """What of a model is no block, on the device only while its pipeline says that the model is in use."""

    def __init__(self, packed: Packed, copies: Copies) -> None:
        self._packed = packed
        self._copies = copies
        self._bytes: Tensor | None = None

    def come(self) -> None:
        """Have it on the device."""
        if self._bytes is None:
            self._bytes = self._copies.buffer(self._packed.size)
            self._copies.wait(self._copies.load(self._packed.host, self._bytes, None))
            self._packed.point_at(self._packed.views(self._bytes))

    def go(self) -> None:
        """Have it in host memory alone."""
        if self._bytes is not None:
            self._packed.point_at(self._packed.at_home)
            self._copies.retire()
            self._bytes = None


class Offloaded:
    """A pipeline whose models' blocks are streamed: the way to them, and back."""

    def __init__(
        self,
        pipe: Any,
        limit: int,
        stream: Stream,
        blocks: dict[nn.Module, Block],
        visitors: dict[str, Visitor],
    ) -> None:
        self.limit = limit
        self.stream = stream
        self.blocks = blocks
        self.handles: list[RemovableHandle] = []
        self.visitors = visitors
        self.watched: Watched | None = None
        self._pipe = pipe
        self._owners = {part: block for module, block in blocks.items() for part in module.modules()}
        for module, block in blocks.items():
            self.handles += [
                module.register_forward_pre_hook(partial(_enter, stream, block)),
                module.register_forward_hook(partial(_leave, stream, block)),
            ]
        if visitors:
            pipe.load_models_to_device = partial(_show_in, self, pipe.load_models_to_device)

    def reach(self, layer: nn.Module) -> None:
        """Have the block of a layer on the device, for a call of the layer alone."""
        if layer in self._owners:
            self.stream.enter(self._owners[layer])

    def release(self) -> None:
        """Have everything that comes and goes in host memory; a call brings it back."""
        self.stream.release()
        for visitor in self.visitors.values():
            visitor.go()

    def undo(self) -> None:
        """Let the pipeline be one whose weights are in host memory, and no more."""
        self.release()
        for handle in self.handles:
            handle.remove()
        if self.watched is not None:
            self.watched.stop()
        vars(self._pipe).pop("load_models_to_device", None)
        delattr(self._pipe, ATTRIBUTE)


def offloaded(pipe: Any) -> Offloaded | None:
    """Return what offload made of the pipeline, None where it did not."""
    state: Offloaded | None = vars(pipe).get(ATTRIBUTE)
    return state


def stream_blocks(pipe: Any, limit: int) -> StepEffect:
    """Keep the weights of all models in host memory and stream the blocks of each to a card of so many bytes.

    What of ``pipe.dit`` is no block stays on the device, and as many of its blocks as the card has room for. What
    of the other models is no block is there while the pipeline says that they are in use.

    Raises:
        StrategyError: ``pipe.dit`` is no stack of blocks, or the card has no room for one of them.
    """
    waiting = _Waiting(pipe.dit)
    models = [
        _Model.of(name, part, waiting)
        for name, part in pipe.named_children()
        if next(part.parameters(), None) is not None
    ]
    main = next(model for model in models if model.module is pipe.dit)
    _check_is_stacked(main)
    device = torch.device(pipe.device)
    copies = copies_for(device)
    _check_fits(main, limit, copies)
    before = offloaded(pipe)
    if before is not None:
        before.undo()

    groups = [tensors for model in models for tensors in model.groups(main)]
    packed, note = _pack(groups, device, waiting)
    taken = iter(packed)
    stacks: list[list[Packed]] = []
    modules: list[nn.Module] = []
    visitors: dict[str, Visitor] = {}
    for model in models:
        for stack in model.stacks:
            stacks.append([next(taken) for _ in stack.blocks])
            modules += [block for _, block in stack.blocks]
        if model is not main and model.rest:
            visitors[model.name] = Visitor(next(taken), copies)
    # Waits until what was drawn is in host memory; and what stays on the device would else be put into the large
    # segment that packing needed.
    copies.trim()
    for tensor in main.rest:
        tensor.data = tensor.data.to(device)

    stream = Stream(stacks, copies)
    state = Offloaded(pipe, limit, stream, dict(zip(modules, stream.blocks, strict=True)), visitors)
    _let_stay(state, main, limit)
    setattr(pipe, ATTRIBUTE, state)
    pipe.vram_management_enabled = False  # DiffSynth would move them too
    return StepEffect(len(modules), len(modules), note)


@contextmanager
def lifted(pipe: Any) -> Iterator[None]:
    """Let a step change the weights of an offloaded pipeline in host memory, and offload it again as it was."""
    state = offloaded(pipe)
    if state is not None:
        state.undo()
    yield
    if state is not None and offloaded(pipe) is None:
        stream_blocks(pipe, state.limit)


@dataclass(frozen=True)
class _Model:
    """A model of a pipeline: its stacks, the tensors of their blocks in the same order, and those of the rest."""

    name: str
    module: nn.Module
    stacks: list[Stack]
    blocks: list[list[Tensor]]
    rest: list[Tensor]

    @classmethod
    def of(cls, name: str, module: nn.Module, waiting: _Waiting) -> _Model:
        stacks = stacks_of(module)
        return cls(name, module, stacks, *split(module, stacks, waiting.blocks))

    def groups(self, main: _Model) -> Iterator[list[Tensor]]:
        """Yield the tensors that are packed together: but for those of the main model's rest."""
        yield from self.blocks
        if self is not main and self.rest:
            yield self.rest


def _check_is_stacked(main: _Model) -> None:
    inside, rest = sum(map(size_of, main.blocks)), size_of(main.rest)
    if inside <= rest:
        raise StrategyError(
            f"offload[stream]: {type(main.module).__name__} is no stack of blocks: {format_size(inside)} of its "
            f"{format_size(inside + rest)} lie in lists of like modules, and more than half must; "
            "use offload[diffsynth]"
        )


def _check_fits(main: _Model, limit: int, copies: Copies) -> None:
    largest = max(places_of(tensors)[1] for tensors in main.blocks)
    needed = copies.overhead + size_of(main.rest) + largest
    if limit < needed:
        raise StrategyError(
            f"offload[stream]: a limit of {format_size(limit)} is too small: {format_size(needed)} are needed for "
            f"a block of {format_size(largest)} and what always stays, before anything is computed; raise "
            "--loraperf-offload-limit or --gpu-budget"
        )


def _let_stay(state: Offloaded, main: _Model, limit: int) -> None:
    """Let each pass through the largest stack of the main model tell how large its inputs are, and be seen."""
    stacks = {id(stack.blocks[0][1]): stack for stack in main.stacks}
    firsts = {module: state.blocks[module] for module in state.blocks if id(module) in stacks}
    module, block = max(firsts.items(), key=lambda pair: sum(each.packed.size for each in pair[1].order))
    residency = Residency(state.stream, block.order, limit, size_of(main.rest))
    handle = module.register_forward_pre_hook(partial(_begin, residency), with_kwargs=True, prepend=True)
    state.handles.append(handle)
    state.watched = Watched(module, residency)


class _Waiting:
    """The parameters of a model's stacks that are drawn into their places, by their ids; others are drawn now.

    Raises:
        StrategyError: one was replaced, whose values would be lost.
    """

    def __init__(self, module: nn.Module) -> None:
        self.blocks: dict[int, tuple[str, str]] = {}
        self._module = module
        self._held = undrawn(module)
        stacked = {name for stack in stacks_of(module) for name, _ in stack.blocks}
        now = dict(module.named_parameters())
        for block, stand_ins in self._held.blocks.items() if self._held is not None else ():
            for name, stand_in in stand_ins.items():
                if now.get(name) is not stand_in:
                    raise StrategyError(
                        f"offload[stream]: {name} was replaced before it was drawn; replace it later"
                    )
            if block not in stacked:
                settle(module, block)
            else:
                self.blocks |= {id(stand_in): (block, name) for name, stand_in in stand_ins.items()}

    def draw(self, places: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Draw what waits of a block into its places; return the parameters by the ids of what stood for them."""
        numbers = {self.blocks[number][1]: number for number in places if number in self.blocks}

        def keep(name: str, value: Tensor) -> Tensor:
            return places[numbers[name]].copy_(value, non_blocking=True)

        for block in {self.blocks[number][0]: None for number in numbers.values()}:
            settle(self._module, block, keep)
        return {number: self._module.get_parameter(name) for name, number in numbers.items()}


def _pack(groups: Sequence[Sequence[Tensor]], device: torch.device, waiting: _Waiting) -> tuple[list[Packed], str]:
    """Pack each group into pinned memory: that which it lies in already if it has some of its own, or new one.

    What is ``waiting`` to be drawn is drawn into its place, group by group.
    """
    users = Counter(key for tensors in groups for key in {_storage(tensor) for tensor in tensors})
    sizes = [places_of(tensors)[1] for tensors in groups]
    homes = [_home(tensors, size, users) for tensors, size in zip(groups, sizes, strict=True)]
    largest = max((size for size, home in zip(sizes, homes, strict=True) if home is not None), default=0)
    staging = torch.empty(largest, dtype=torch.uint8, device=device) if largest else None
    new = host_memories([size for size, home in zip(sizes, homes, strict=True) if home is None], device)
    packed, plain = [], []
    for tensors, home in zip(groups, homes, strict=True):
        if home is not None:
            packed.append(pack(tensors, home, staging=staging))
            continue
        memory = next(new)
        plain += [memory.why_not] if memory.why_not else []
        packed.append(pack(tensors, memory.bytes, draw=waiting.draw))
    note = (
        f"{len(plain)} of {len(groups)} blocks are in memory that is not pinned, so copied slowly: "
        if plain
        else ""
    )
    return packed, note + "".join(plain[:1])


def _storage(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - the one that a storage has
    return identity


def _home(tensors: Sequence[Tensor], size: int, users: Counter[int]) -> Tensor | None:
    """Return the bytes of pinned memory that this group alone lies in; None where they are none or too few."""
    for tensor in tensors:
        if tensor.device.type == "cpu" and users[_storage(tensor)] == 1 and tensor.data.is_pinned():
            memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            if memory.numel() >= size:
                return memory
    return None


def _begin(residency: Residency, _module: nn.Module, args: Any, kwargs: Any) -> None:
    residency.begin(sum(leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)))


def _enter(stream: Stream, block: Block, *_: Any) -> None:
    stream.enter(block)


def _leave(stream: Stream, block: Block, *_: Any) -> None:
    stream.leave(block)


def _show_in(state: Offloaded, before: Callable[[Any], None], names: Sequence[str]) -> None:
    """Bring what the models of these names need beside their blocks, with room for what they compute."""
    for name, visitor in state.visitors.items():
        if name not in names:
            visitor.go()
    wanted = [visitor for name, visitor in state.visitors.items() if name in names]
    if wanted:
        state.stream.drop_kept()
    for visitor in wanted:
        visitor.come()
    before(names)
