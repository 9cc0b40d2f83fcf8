"""The adapters of a bench: the files that were named, else a synthetic one made for the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from torch._subclasses.fake_tensor import unset_fake_temporarily

from pytest_loraperf.backends.protocol import Backend
from pytest_loraperf.backends.undrawn import Layers
from pytest_loraperf.errors import ModelError, said
from pytest_loraperf.lora import (
    Adapter,
    AdapterSource,
    Match,
    match_adapter,
    parse_source,
    read_adapter,
    weight_norms,
    write_synthetic_adapter,
)
from pytest_loraperf.models import ModelSpec


class Adapters:
    """Reads each file once, and finds the layers of a pipeline that it is for."""

    def __init__(self, model: ModelSpec, named: Iterable[str | Path], backend: Backend, device: str) -> None:
        """``device`` is where the values of a synthetic adapter are drawn, by torch's name for it.

        ``labels`` are the files that were named, as results say them: ``checkpoint-1000/lora.safetensors:0.8``.
        """
        self.model = model
        self.sources = tuple(parse_source(str(adapter)) for adapter in named)
        # Once: a test may change the folder that it runs in.
        self.labels = tuple(f"{_with_folder(source.path)}:{source.scale:g}" for source in self.sources)
        self.backend = backend
        self._device = device
        self._read: tuple[Adapter, ...] | None = None
        self._own: dict[AdapterSource, Collection[str] | str | None] = {}
        self._folder: TemporaryDirectory[str] | None = None

    def read(self) -> None:
        """Read the files that were named, so that a model is not built in vain for one that is damaged.

        Raises:
            AdapterError: one cannot be read.
        """
        if self._read is None and self.sources:
            self._read = tuple(map(read_adapter, self.sources))

    @property
    def named(self) -> tuple[Adapter, ...]:
        """The adapters of the files that were named, read; none where a synthetic one stands for them."""
        return (self._read or ()) if self.sources else ()

    def match(self, pipeline: Any) -> tuple[Match, ...]:
        """Return which of a pipeline's layers each adapter changes.

        Raises:
            AdapterError: a file cannot be read, or fits no layer.
            ModelError: no file was named, and the pipeline has nothing to make an adapter for.
        """
        shapes = self.backend.lora_shapes(pipeline)
        self.read()
        if self._read is None:
            self._read = (self.synthetic(pipeline),)
        rename = partial(self.backend.lora_names, pipeline)
        matches = (match_adapter(adapter, shapes, rename) for adapter in self._read)
        return tuple(self._as_loaded(pipeline, match) if self.sources else match for match in matches)

    def _as_loaded(self, pipeline: Any, match: Match) -> Match:
        """Note what the library's own loading of the file leaves as it is; it is asked once of each file.

        In a forecast, a file's tensors have values all the same.
        """
        source = match.adapter.source
        if source not in self._own:
            try:
                with unset_fake_temporarily():
                    # Copies, for there are conversions that scale what they are given in place.
                    tensors = {key: tensor.clone() for key, tensor in match.adapter.tensors.items()}
                    self._own[source] = self.backend.lora_loaded(pipeline, tensors)
            except Exception as error:  # noqa: BLE001 - whatever the library raises is what there is to tell
                self._own[source] = said(error)
        own = self._own[source]
        if isinstance(own, str):
            return replace(match, refused=own)
        left = () if own is None else tuple(name for name in match.layers if name not in own)
        return replace(match, not_loaded=left)

    def synthetic(self, pipeline: Any) -> Adapter:
        """Write a seeded adapter for the model, and read the file, since nobody named one."""
        module = getattr(pipeline, "dit", None) or getattr(pipeline, "transformer", None)
        if module is None:
            raise ModelError(f"{self.model}: no adapter was given, and there is no dit to make one for")
        self._folder = TemporaryDirectory(prefix="loraperf-")
        path = Path(self._folder.name) / "synthetic.safetensors"
        norms = weight_norms(Layers(module), self.backend.lora_targets(pipeline), self._device)
        write_synthetic_adapter(path, norms, device=self._device)
        return read_adapter(AdapterSource(path))

    def close(self) -> None:
        """Remove the file of a synthetic adapter."""
        if self._folder is not None:
            self._folder.cleanup()


def _with_folder(path: Path) -> str:
    """Return a file's name with its folder's, for many adapters have the file name that a trainer gives them.

    A temporary folder is called otherwise in each run, which would make another adapter of the same one.
    """
    folder, here = path.absolute().parent, Path.cwd()
    is_made_up = folder.is_relative_to(gettempdir()) and not folder.is_relative_to(here)
    return path.name if folder == here or is_made_up else f"{folder.name}/{path.name}"
