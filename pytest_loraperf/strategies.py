"""Steps, strategies and their registry. A strategy is a name and an ordered tuple of steps; no torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pytest_loraperf.errors import StrategyError
from pytest_loraperf.units import parse_size


class StepKind(StrEnum):
    """The operations on a pipeline."""

    ATTACH = "attach"
    FUSE = "fuse"
    QUANTIZE = "quantize"
    OFFLOAD = "offload"
    COMPILE = "compile"


SCHEMED = (StepKind.QUANTIZE, StepKind.OFFLOAD)
"""The operations that there are several ways to carry out."""


@dataclass(frozen=True)
class Step:
    """One operation on a pipeline.

    ``scheme`` says how a quantize step quantizes, or an offload step offloads; None leaves the choice to
    ``--loraperf-scheme`` and ``--loraperf-offload``.
    ``card`` is the size in bytes of the card that an offload step is meant for.

    Raises:
        StrategyError: the kind is unknown, or an option belongs to another kind.
    """

    kind: StepKind | str
    scheme: str | None = None
    card: int | None = None

    def __post_init__(self) -> None:
        allowed = ", ".join(StepKind)
        if self.kind not in tuple(StepKind):
            raise StrategyError(f"step: got {self.kind!r}; the steps are {allowed}")
        object.__setattr__(self, "kind", StepKind(self.kind))
        if self.scheme is not None and self.kind not in SCHEMED:
            raise StrategyError(f"step {self.kind}: only quantize and offload take a scheme, got {self.scheme!r}")
        if self.card is not None and self.kind is not StepKind.OFFLOAD:
            raise StrategyError(f"step {self.kind}: only offload takes a card size, got {self.card!r}")

    def __str__(self) -> str:
        return f"{self.kind}[{self.scheme}]" if self.scheme else str(self.kind)


ATTACH = Step(StepKind.ATTACH)
FUSE = Step(StepKind.FUSE)
QUANTIZE = Step(StepKind.QUANTIZE)
COMPILE = Step(StepKind.COMPILE)


def offload(card: str, scheme: str | None = None) -> Step:
    """Return an offload step for a card of this size: ``offload("8GB")``, ``offload("8GB", "diffsynth")``."""
    return Step(StepKind.OFFLOAD, scheme, parse_size(card))


ALL = "all"


@dataclass(frozen=True)
class Strategy:
    """A name and an ordered tuple of steps.

    ``mistake`` says why the order is one to avoid; it marks the strategy in every table.

    Raises:
        StrategyError: the name is no Python identifier, or a step is not a ``Step``.
    """

    name: str
    steps: tuple[Step, ...]
    mistake: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name):
            raise StrategyError(f"strategy {self.name!r}: a name is letters, digits and _, not a digit first")
        if self.name == ALL:
            raise StrategyError(f"strategy {ALL}: the name stands for all strategies; choose another")
        given: object = self.steps
        if not isinstance(given, tuple):
            raise StrategyError(f"strategy {self.name}: the steps {given!r} are no tuple; write (Step('fuse'),)")
        strangers = [step for step in given if not isinstance(step, Step)]
        if strangers:
            raise StrategyError(f"strategy {self.name}: {strangers[0]!r} is not a Step; write Step('fuse')")

    def has(self, *kinds: StepKind) -> bool:
        """Whether one of these operations is among the steps."""
        return any(step.kind in kinds for step in self.steps)

    @property
    def uses_lora(self) -> bool:
        """Whether the LoRA is attached or fused at all."""
        return self.has(StepKind.ATTACH, StepKind.FUSE)

    @property
    def fuses_after_quantizing(self) -> bool:
        """Whether a LoRA is merged into weights that are already quantized."""
        kinds = [step.kind for step in self.steps]
        return (
            StepKind.FUSE in kinds
            and StepKind.QUANTIZE in kinds
            and (kinds.index(StepKind.QUANTIZE) < kinds.index(StepKind.FUSE))
        )

    def with_scheme(self, scheme: str, kind: StepKind = StepKind.QUANTIZE) -> Strategy:
        """Return this strategy with the scheme given to each step of this kind that names none."""
        steps = (
            replace(step, scheme=scheme) if step.kind is kind and not step.scheme else step for step in self.steps
        )
        return replace(self, steps=tuple(steps))

    def compiled(self) -> Strategy:
        """Return this strategy with compile as its last step."""
        return self if self.has(StepKind.COMPILE) else replace(self, steps=(*self.steps, COMPILE))

    def without_compile(self) -> Strategy:
        """Return this strategy without its compile steps."""
        return replace(self, steps=tuple(s for s in self.steps if s.kind is not StepKind.COMPILE))


NO_LORA = Strategy("no_lora", ())
SHIPPED = (
    Strategy("standard_lora", (ATTACH,)),
    Strategy(
        "quantize_then_lora",
        (QUANTIZE, ATTACH),
        mistake="quantize before attach: right but slow, and the LoRA can no longer be fused well",
    ),
    Strategy("lora_then_quantize", (ATTACH, QUANTIZE)),
    Strategy("fused", (FUSE,)),
    Strategy("fused_then_quantize", (FUSE, QUANTIZE)),
    Strategy("low_vram", (ATTACH, QUANTIZE, offload("8GB"))),
    Strategy("low_vram_optimized", (FUSE, QUANTIZE, offload("6GB"))),
    Strategy(
        "quantize_then_fuse",
        (QUANTIZE, FUSE),
        mistake="quantize before fuse: the sum is rounded to the quantized grid and the LoRA fades or is lost",
    ),
)
REFERENCE = "standard_lora"
SMALLEST = "low_vram_optimized"
"""What needs the smallest card, as a rule."""
CONTROL = NO_LORA.name


class Strategies(Mapping[str, Strategy]):
    """The strategies known to one run: those that ship, the control, and the user's own."""

    def __init__(self, more: Iterable[Strategy] = ()) -> None:
        self._by_name = {strategy.name: strategy for strategy in (*SHIPPED, NO_LORA)}
        for strategy in more:
            self.register(strategy)

    @classmethod
    def gathered(cls, returned: Iterable[object]) -> Strategies:
        """Return those that ship and what each ``pytest_loraperf_strategies`` returned.

        Raises:
            StrategyError: one returned no list, or a strategy in it cannot be used.
        """
        strategies = cls()
        for some in returned:
            if not isinstance(some, Iterable):
                raise StrategyError(f"pytest_loraperf_strategies returned {some!r}; return a list of strategies")
            for strategy in some:
                strategies.register(strategy)
        return strategies

    def register(self, strategy: object) -> None:
        """Add a strategy of the user's.

        Raises:
            StrategyError: it is no ``Strategy``, or its name is taken by another one.
        """
        if not isinstance(strategy, Strategy):
            raise StrategyError(f"pytest_loraperf_strategies: {strategy!r} is not a Strategy")
        if self._by_name.get(strategy.name, strategy) != strategy:
            raise StrategyError(f"strategy {strategy.name}: the name is taken; choose another")
        self._by_name[strategy.name] = strategy

    def find(self, name: object) -> Strategy:
        """Return the strategy of this name.

        Raises:
            StrategyError: there is none; the message has the nearest name and all of them.
        """
        if name in self._by_name:
            return self._by_name[str(name)]
        import difflib  # noqa: PLC0415 - start-up

        near = difflib.get_close_matches(str(name), self._by_name, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise StrategyError(f"unknown strategy {name!r}{hint} The strategies are {', '.join(self._by_name)}")

    def select(self, names: str) -> tuple[Strategy, ...]:
        """Return the strategies of a comma-separated list, each once; ``all`` is every one but the control.

        Raises:
            StrategyError: a name is unknown, or the list is empty.
        """
        if names == ALL:
            return tuple(s for s in self._by_name.values() if s.name != CONTROL)
        found = tuple(dict.fromkeys(self.find(name.strip()) for name in names.split(",") if name.strip()))
        if not found:
            raise StrategyError(f"no strategy in {names!r}; write all, or names such as fused,standard_lora")
        return found

    def __getitem__(self, name: str) -> Strategy:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)
