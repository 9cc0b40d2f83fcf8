"""Loading: what comes of ``from_pretrained`` and its kin, and whether it is quantized."""

from __future__ import annotations

import ast
import re

from pytest_loraperf.order.calls import (
    DTYPE_KEYWORDS,
    LOAD_IN_BITS,
    LOADERS,
    MAIN_COMPONENTS,
    MANAGING_KEYWORDS,
    OTHER_COMPONENTS,
    PEFT_MODELS,
    QUANTIZATION_CONFIGS,
    QUANTIZATION_KEYWORDS,
    QUANTIZED_MODELS,
    QUANTIZER_FILTERS,
    SHARERS,
    STORAGE_KEYWORDS,
)
from pytest_loraperf.order.events import Event, Kind
from pytest_loraperf.order.lint.conditions import Conditions
from pytest_loraperf.order.lint.recognize import Items, is_fp8
from pytest_loraperf.order.lint.values import NONE, Arguments, Const, Imported, Thing, Value, World

_OWN_PEFT_MODEL = re.compile(r"(?<!Auto)Peft(?!Config)")
"""Someone's own kind of ``PeftModel``; given a model, its ``from_pretrained`` attaches to it as well."""

_QUANTIZED_FILE = re.compile(r"(?<![a-z0-9])(?:nf4|fp4|fp8|int4|int8)(?![a-z0-9])", re.IGNORECASE)
"""What a checkpoint of quantized weights is called; DiffSynth keeps them so, and attaches LoRAs to them."""


class Loads(Conditions):
    """Recognizing what loads a model, and what configures that."""

    def items_of(self, world: World) -> Items:
        """Return what gives the values in a dict or list."""

        def inside(value: Value | None) -> list[Value] | None:
            for kind in ("dict", "list"):
                found = self.items(world, value, kind)
                if found is not None:
                    return [each for _, each in found]
            return None

        return inside

    def load(
        self, receiver: Value | None, name: str, given: Arguments, node: ast.Call, world: World
    ) -> Value | None:
        """Return what this call loads or configures, None where it does neither."""
        found: Value | None = None
        if name in QUANTIZATION_CONFIGS or name.endswith(("BitsAndBytesConfig", "QuantizationConfig")):
            found = self._quantization(name, given, world)
        elif name == "ModelConfig":
            found = self.fresh(name, self._model_config(given, world))
        elif name == "load_models" and isinstance(receiver, Thing):
            self._loaded(receiver, self._reads_fp8(given, world), node, world)
            found = self.fresh(name)
        elif name in SHARERS:
            found = self.thing(given.get(0)) or self.fresh(name, {"model"})
        elif name in LOADERS:
            found = self._from_pretrained(receiver, given, node, world)
        elif receiver is None and name[:1].isupper():
            found = self._constructed(name, given, world)
        return found

    def _constructed(self, name: str, given: Arguments, world: World) -> Thing | None:
        """Return a pipeline that is put together from its components, None where no component is given."""
        shared = given.keywords.get("**components")
        if isinstance(shared, Thing):
            return shared
        main = self._main(given)
        if main is None or not name.endswith(("Pipeline", "PeftModel", "Wrapper")):
            return None
        self._take_components(main, given, world)
        return main

    def _from_pretrained(self, receiver: Value | None, given: Arguments, node: ast.Call, world: World) -> Thing:
        cls = (
            receiver.name
            if isinstance(receiver, Imported)
            else receiver.made
            if isinstance(receiver, Thing)
            else ""
        )
        base = self.thing(given.get(0) or given.get("model"))
        if cls.startswith(PEFT_MODELS) or (_OWN_PEFT_MODEL.search(cls) and self._is_known_model(base, world)):
            base = self.fresh(cls, {"model"}) if base is None else base
            self._attached(base, given, node, world)
            return base
        main = self._main(given)
        made = self.fresh(cls, {"model"}) if main is None else main
        if cls.startswith("AutoPeft"):
            self._attached(made, given, node, world)
        quantizes = self._quantizes(cls, given, world)
        if main is None or quantizes:
            self._loaded(made, quantizes, node, world)
        asked = [given.keywords[each] for each in QUANTIZATION_KEYWORDS if each in given.keywords]
        if self._is_managing(given, world) or any(map(self._asks_quantization, asked)):
            world.set(world.root(made.number), "<managed>", Const(value=True))
        self._take_components(made, given, world)
        return made

    def _is_known_model(self, base: Thing | None, world: World) -> bool:
        return base is not None and ("model" in base.flags or bool(world.history(base)))

    def _main(self, given: Arguments) -> Thing | None:
        """Return the denoiser that is passed in, if one is."""
        for name in MAIN_COMPONENTS & given.keywords.keys():
            thing = self.thing(given.keywords[name])
            if thing is not None and "text" not in thing.flags:
                return thing
        return None

    def _take_components(self, made: Thing, given: Arguments, world: World) -> None:
        for name, value in given.keywords.items():
            if name not in MAIN_COMPONENTS and isinstance(value, Thing):
                world.set(made.number, name, value)

    def _event(self, kind: Kind, node: ast.Call, quantizes: bool = False) -> Event:
        via = self.sites[-1] if self.sites else None
        return Event(kind, ast.unparse(node.func), self.place(node), via, quantizes=quantizes)

    def _loaded(self, made: Thing, quantizes: bool | None, node: ast.Call, world: World) -> None:
        if quantizes is not None:
            self.happen(world, made, self._event(Kind.LOAD, node, quantizes), node)

    def _attached(self, made: Thing, given: Arguments, node: ast.Call, world: World) -> None:
        name = given.get("adapter_name")
        adapter = name.value if isinstance(name, Const) and isinstance(name.value, str) else None
        self.happen(world, made, self._event(Kind.ATTACH, node)._replace(adapter=adapter), node)

    # What is quantized

    def _quantization(self, name: str, given: Arguments, world: World) -> Thing:
        bits = [given.keywords[each] for each in LOAD_IN_BITS if each in given.keywords]
        off = bool(bits) and all(isinstance(each, Const) and not each.value for each in bits)
        parts = self._parts(given, world)
        off = off or bool(parts and not any(part in MAIN_COMPONENTS for part in parts))
        flags = {"config"} if off else {"config", "quantizes"}
        if any(given.get(each) not in (None, NONE) for each in QUANTIZER_FILTERS):
            flags.add("filtered")
        return self.fresh(name, flags)

    def _parts(self, given: Arguments, world: World) -> list[str]:
        """Return the names of the components that a pipeline's quantization is for, where they are known."""
        mapping = self.items(world, given.get("quant_mapping"), "dict")
        if mapping is not None:
            return [key for key, _ in mapping]
        value = given.get("components_to_quantize")
        listed = [value] if isinstance(value, Const) else self.items_of(world)(value) or []
        return [each.value for each in listed if isinstance(each, Const) and isinstance(each.value, str)]

    def _quantizes(self, cls: str, given: Arguments, world: World) -> bool | None:
        """Return whether a load quantizes the model that a LoRA is for; None where that is not known."""
        answers = [
            self._asks_quantization(given.keywords[each])
            for each in QUANTIZATION_KEYWORDS
            if each in given.keywords
        ]
        for name in LOAD_IN_BITS:
            value = given.keywords.get(name, NONE)
            answers.append(bool(value.value) if isinstance(value, Const) else None)
        answers += [True] if cls.startswith(QUANTIZED_MODELS) else []
        answers.append(self._reads_fp8(given, world))
        configs = given.keywords.get("model_configs")
        if configs is not None:
            answers.append(self._configs_quantize(configs, world))
        if True in answers:
            return True
        return None if None in answers or given.opaque else False

    def _asks_quantization(self, value: Value) -> bool | None:
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, Thing):
            if "config" in value.flags:
                return "quantizes" in value.flags
            return True if "dict" in value.flags or "onfig" in value.made else None
        return True if isinstance(value, Imported) else None

    def _reads_fp8(self, given: Arguments, world: World) -> bool | None:
        for name in DTYPE_KEYWORDS:
            if name in given.keywords:
                return is_fp8(given.keywords[name], self.items_of(world))
        return False

    def _model_config(self, given: Arguments, world: World) -> set[str]:
        """Return what is known of a DiffSynth ``ModelConfig``."""
        values = [each.value for each in (*given.positional, *given.keywords.values()) if isinstance(each, Const)]
        texts = [each.replace("-", "_") for each in values if isinstance(each, str)]
        if any(word in text for text in texts for word in OTHER_COMPONENTS):
            return {"config", "other"}
        flags = {"config", "quantizes", "managed"} if any(map(_QUANTIZED_FILE.search, texts)) else {"config"}
        stored = [
            is_fp8(value, self.items_of(world))
            for name in (*STORAGE_KEYWORDS, "vram_config")
            if (value := given.keywords.get(name, NONE)) != NONE
        ]
        asked = [
            self._asks_quantization(given.keywords[each])
            for each in QUANTIZATION_KEYWORDS
            if each in given.keywords
        ]
        if True in (*stored, *asked):
            flags.add("quantizes")
        elif None in (*stored, *asked) or given.opaque:
            flags.add("unknown")
        if given.keywords.keys() & set(MANAGING_KEYWORDS) or True in asked:
            flags.add("managed")
        return flags

    def _configs(self, configs: Value | None, world: World) -> list[Thing] | None:
        inside = self.items_of(world)(configs)
        if inside is None:
            return None
        return [each for each in inside if isinstance(each, Thing) and "other" not in each.flags]

    def _configs_quantize(self, configs: Value, world: World) -> bool | None:
        found = self._configs(configs, world)
        if found is None:
            return None
        if any("quantizes" in each.flags for each in found):
            return True
        return None if any("unknown" in each.flags or "config" not in each.flags for each in found) else False

    def _is_managing(self, given: Arguments, world: World) -> bool:
        found = self._configs(given.keywords.get("model_configs"), world) or []
        return any("managed" in each.flags for each in found)
