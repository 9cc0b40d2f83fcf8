"""The recorder: wraps the entry points, keeps a history of each model, and tells of every broken rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from pytest_loraperf.order.entry_points import ENTRY_POINTS, READERS_OF_ADAPTERS, EntryPoint
from pytest_loraperf.order.events import Event, Kind, Place
from pytest_loraperf.order.rules import check
from pytest_loraperf.order.rules.base import quantized
from pytest_loraperf.order.runtime import weights
from pytest_loraperf.order.runtime.declared import INSIDE
from pytest_loraperf.order.runtime.effects import AdapterNames, Call, Step
from pytest_loraperf.order.runtime.findings import Finding, describe, is_suppressed
from pytest_loraperf.order.runtime.histories import Histories
from pytest_loraperf.order.runtime.patches import Patches, Wrapper
from pytest_loraperf.order.runtime.sites import Sites

JUDGED = frozenset({Kind.ATTACH, Kind.FUSE, Kind.QUANTIZE, Kind.HOTSWAP})
"""What can break a rule; the rest is only remembered."""
LOOKED_AT = frozenset({Kind.ATTACH, Kind.FUSE, Kind.QUANTIZE})
"""Before these it matters whether the weights are quantized already, by whatever was not seen."""
UNSEEN = "earlier code"


class Recorder:
    """Nothing changes in what a wrapped call returns or raises.

    ``tell`` takes what is found, ``trouble`` what went wrong in the recorder itself; ``root`` is the folder that
    paths are shown relative to.
    """

    def __init__(self, root: str, tell: Callable[[Finding], None], trouble: Callable[[str], None]) -> None:
        self.tell = tell
        self.trouble = trouble
        self.active = True
        self.sites = Sites(root)
        self.histories = Histories()
        self.adapters = AdapterNames()
        self.patches = Patches(dict(self._wrappers()))

    def loaded(self, module: ModuleType, *, late: bool = False) -> None:
        """Wrap the entry points of a module; ``late`` when it was imported before anyone waited for it."""
        self.patches.apply(module, late=late)

    def close(self) -> None:
        """Put everything back; wrappers that somebody still holds only call what they wrap."""
        self.active = False
        self.patches.undo()

    def _wrappers(self) -> Iterator[tuple[tuple[str, str], Wrapper]]:
        together: defaultdict[tuple[str, str], list[EntryPoint]] = defaultdict(list)
        for point in ENTRY_POINTS:
            together[point.module, point.name].append(point)
        yield from ((where, self._recording(points)) for where, points in together.items())
        yield from ((where, _reading) for where in READERS_OF_ADAPTERS)

    def _recording(self, points: Sequence[EntryPoint]) -> Wrapper:
        fuses = any(point.kind is Kind.FUSE for point in points)

        def wrapper(wrapped: Any, receiver: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            __tracebackhide__ = True
            inside = INSIDE.get()
            if inside is None and self.active:
                return self._record(points, wrapped, Call(receiver, args, kwargs))
            if inside is not None and fuses:
                inside.fused = True
            return wrapped(*args, **kwargs)

        return wrapper

    def _record(self, points: Iterable[EntryPoint], wrapped: Any, call: Call) -> Any:
        __tracebackhide__ = True
        token = INSIDE.set(call.inside)
        steps: list[Step] = []
        try:
            self._safely(lambda: steps.extend(self._begin(points, call)))
            result = wrapped(*call.args, **call.kwargs)
        except Exception:
            self._safely(lambda: self._end(steps, None, raised=True))
            raise
        finally:
            INSIDE.reset(token)
        self._safely(lambda: self._end(steps, result))
        return result

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a fault of the recorder must not become one of the call
            self.trouble(f"the order recorder missed a call: {type(error).__name__}: {error}")

    def _begin(self, points: Iterable[EntryPoint], call: Call) -> Iterator[Step]:
        for point in points:
            if call.does(point):
                step = Step.begin(point, call)
                if point.kind in LOOKED_AT:
                    for model in step.models:
                        self._look(model)
                yield step

    def _look(self, model: Any) -> None:
        """Remember that weights are quantized, where that was not seen to happen."""
        if quantized(self.histories.of(model)) is None and weights.has_quantized(model):
            where, via = self.sites.here()
            self.histories.add(model, Event(Kind.LOAD, UNSEEN, where, via, quantizes=True))

    def _end(self, steps: Iterable[Step], result: Any, *, raised: bool = False) -> None:
        where, via = self.sites.here()
        for step in steps:
            for model, event in self._events(step, result, where, via):
                if event.kind in JUDGED:
                    self._judge(model, event, raised=raised)
                # What matched no layer was told, and is not there for what comes after.
                if not raised and (event.layers != 0 or event.kind is Kind.QUANTIZE):
                    self.histories.add(model, event)

    def _events(self, step: Step, result: Any, where: Place, via: Place | None) -> Iterator[tuple[Any, Event]]:
        point = step.point
        every = point.picks is not None and step.call.get(point.picks) is None
        filtered = point.spares_adapters or any(step.call.get(each) is not None for each in point.filters)
        for model, kind, layers, total in step.changes(result):
            if kind is Kind.LOAD:
                self.histories.start_anew(model)
            quantizes = kind is Kind.LOAD and weights.has_quantized(model)
            for adapter in self.adapters.of(step):
                yield (
                    model,
                    Event(
                        kind,
                        point.call,
                        where,
                        via,
                        adapter,
                        quantizes,
                        point.needs_fp8,
                        filtered,
                        every,
                        layers,
                        total,
                        self.adapters.source(step) if kind is Kind.ATTACH else None,
                    ),
                )

    def _judge(self, model: Any, event: Event, *, raised: bool) -> None:
        for violation in check(self.histories.of(model), event):
            if not is_suppressed(violation, self.sites):
                self.tell(describe(violation, self.sites, raised=raised))


def _reading(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    inside = INSIDE.get()
    if inside is not None:
        inside.names = frozenset(key.partition(".lora_B.")[0] for key in result if ".lora_A." not in key)
    return result
