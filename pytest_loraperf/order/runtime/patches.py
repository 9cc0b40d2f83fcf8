"""Wraps the entry points in the modules of the libraries, and puts back what was there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import wrapt

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""Called with what is wrapped, its ``self`` or None, and the arguments."""


@dataclass
class Patches:
    """``wrappers`` are by module and name: ``("peft.*", "*.load_adapter")``.

    What another run of pytest in this process has wrapped is wrapped once more; the outer wrapper alone records.
    """

    wrappers: Mapping[tuple[str, str], Wrapper]
    _done: list[tuple[Any, str, Any, Any]] = field(default_factory=list)

    def apply(self, module: ModuleType, *, late: bool = False) -> None:
        """Wrap what is defined in a module; ``late`` follows a function to where it was imported before."""
        for name, wrapper in self._for(module.__name__).items():
            owner, _, method = name.rpartition(".")
            if owner:
                for cls in _classes(module, owner):
                    if method in vars(cls):
                        self._wrap(cls, method, wrapper)
            elif getattr(vars(module).get(name), "__module__", None) == module.__name__:
                self._wrap(module, name, wrapper)
                if late:
                    self._follow()

    def undo(self) -> None:
        """Put back what was there, unless somebody else has replaced it since."""
        for target, name, original, wrapped in reversed(self._done):
            if vars(target).get(name) is wrapped:
                setattr(target, name, original)
            if isinstance(target, ModuleType):
                for holder in _holders(name, wrapped):
                    setattr(holder, name, original)
        self._done.clear()

    def _for(self, module: str) -> dict[str, Wrapper]:
        package = f"{module.partition('.')[0]}.*"
        return {name: found for (where, name), found in self.wrappers.items() if where in (module, package)}

    def _wrap(self, target: Any, name: str, wrapper: Wrapper) -> None:
        original = vars(target)[name]
        if not any(original is wrapped for *_, wrapped in self._done):
            wrapt.wrap_function_wrapper(target, name, wrapper)
            self._done.append((target, name, original, vars(target)[name]))

    def _follow(self) -> None:
        target, name, original, wrapped = self._done[-1]
        for holder in _holders(name, original):
            if holder is not target:
                setattr(holder, name, wrapped)


def _classes(module: ModuleType, pattern: str) -> Iterator[type]:
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__ and pattern in ("*", value.__name__):
            yield value


def _holders(name: str, value: object) -> list[ModuleType]:
    modules: list[object] = list(sys.modules.values())  # someone may have put anything there
    return [each for each in modules if isinstance(each, ModuleType) and vars(each).get(name) is value]
