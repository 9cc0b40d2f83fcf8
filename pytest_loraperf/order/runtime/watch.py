"""Waits for the libraries to be imported by someone else. The standard library only: it is there in every run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGES = frozenset({"diffsynth", "diffusers", "optimum", "peft", "torchao"})
MODULES = frozenset(
    {
        "torch",
        "torch.nn.modules.module",
        "transformers.modeling_utils",
        "transformers.integrations.peft",
        "pytest_loraperf.backends.streaming.pipeline",
    }
)


def is_watched(name: str) -> bool:
    """Whether something in the module of this name may have to be wrapped."""
    return name in MODULES or name.partition(".")[0] in PACKAGES


class ImportWatch:
    """Tells of each watched module once it has been executed; a finder that finds nothing of its own."""

    def __init__(self, loaded: Callable[[ModuleType], None]) -> None:
        self.loaded = loaded

    def install(self) -> None:
        """Start to wait."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the finders after this one find, to be told when it is executed."""
        if not is_watched(name):
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._tell_when_executed(spec.loader)
        return spec

    def _tell_when_executed(self, loader: object) -> None:
        execute = getattr(loader, "exec_module", None)
        if execute is None or not hasattr(loader, "__dict__"):
            return

        def execute_and_tell(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)  # the one set below, on this loader alone
            execute(module)
            self.loaded(module)

        loader.exec_module = execute_and_tell  # type: ignore[attr-defined]  # checked above
