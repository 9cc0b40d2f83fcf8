"""The calls that change a model, as data: where each is defined, what it does, and where its model is in it.

Positions count the arguments after ``self``. Nothing is imported here but the standard library. The linter's table
of the same calls is ``calls``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_loraperf.order.events import Kind

COMPONENTS = ("dit", "dit2", "transformer", "transformer_2", "unet", "model")
"""What a pipeline's denoising models are called: those that a LoRA is for."""

DTYPES = ("offload_dtype", "onload_dtype", "preparing_dtype", "computation_dtype")
"""What DiffSynth calls the dtypes that it keeps a managed layer's weights in, by state."""


class Argument(NamedTuple):
    """An argument by its position and its name; at ``ATTRIBUTE`` it is an attribute of ``self``."""

    position: int
    name: str


ATTRIBUTE = -1
KEYWORD = 99
"""The position of what is given by its name alone."""
PIPELINE = Argument(ATTRIBUTE, "")
"""``self`` is a pipeline: its components are the models."""
SELF = Argument(ATTRIBUTE, "self")
"""``self`` is the model."""
RESULT = Argument(ATTRIBUTE, "return")
"""What is returned is the model, or a pipeline of models."""


@dataclass(frozen=True)
class EntryPoint:
    """One call, and what it does.

    ``module`` is where it is defined, ``peft.*`` any module of the package; ``name`` is a function's, or
    ``Class.method`` with ``*`` for any class. ``call`` is what a reader knows it as. ``parts`` names those
    components of a pipeline that it works on; ``when`` tells from an argument whether it does this at all;
    any of ``filters`` leaves layers out; what ``spares_adapters`` leaves theirs out unasked; without
    ``picks`` all active adapters are meant. ``countable``: the adapters of the models can be counted around it.
    ``source`` is what an adapter is read from, all of it together, where that is not the last of ``adapter``.
    """

    module: str
    name: str
    kind: Kind
    call: str
    on: Argument = PIPELINE
    adapter: tuple[Argument, ...] = ()
    source: tuple[Argument, ...] = ()
    parts: Argument | None = None
    when: tuple[Argument, Callable[[Any], bool]] | None = None
    filters: tuple[Argument, ...] = ()
    spares_adapters: bool = False
    picks: Argument | None = None
    needs_fp8: bool = False
    countable: bool = False


def is_float8(dtype: Any) -> bool:
    """Whether a torch dtype is one of the 8-bit floats."""
    return bool(getattr(dtype, "is_floating_point", False)) and dtype.itemsize == 1


def is_float8_or_default(dtype: Any) -> bool:
    """Whether a dtype whose default is float8 is that, or not given."""
    return dtype is None or is_float8(dtype)


def is_positive(alpha: Any) -> bool:
    """Whether a LoRA of this strength is added, and not taken away again."""
    return alpha is None or bool(alpha >= 0)


def is_negative(alpha: Any) -> bool:
    """Whether a LoRA of this strength is taken away: fusing it with a negative strength undoes it."""
    return not is_positive(alpha)


def is_false(value: Any) -> bool:
    """Whether a flag is off or not given."""
    return not value


def offloads(config: Any) -> bool:
    """Whether DiffSynth's ``vram_config`` keeps weights elsewhere than where they are computed with."""
    devices = {
        key: str(value).partition(":")[0] for key, value in (config or {}).items() if key.endswith("_device")
    }
    kept = {devices.get(key) for key in ("offload_device", "onload_device")} - {None}
    return bool(kept - {devices.get("computation_device")})


def quantizes(config: Any) -> bool:
    """Whether DiffSynth's ``vram_config`` keeps weights as fp8."""
    return any(is_float8((config or {}).get(key)) for key in DTYPES)


FIRST = Argument(0, "model")
CONFIG = Argument(2, "vram_config")
LORA = (Argument(1, "lora_config"), Argument(4, "state_dict"))
STATE = (Argument(1, "state_dict"), Argument(1, "state_dict_lora"))
ALPHA = Argument(2, "alpha")
LOADERS = ("*.fuse_lora_to_base_model", "GeneralLoRALoader.load", "FluxLoRALoader.load")
DIFFUSERS_FILE = (
    Argument(0, "pretrained_model_name_or_path_or_dict"),
    Argument(KEYWORD, "subfolder"),
    Argument(KEYWORD, "weight_name"),
)
KEYWORD_HOTSWAP = Argument(KEYWORD, "hotswap")
ADAPTER_NAME = (Argument(1, "adapter_name"),)

DIFFSYNTH = (
    EntryPoint("diffsynth.*", "*.from_pretrained", Kind.LOAD, "from_pretrained", RESULT),
    EntryPoint(
        "diffsynth.*",
        "*.load_lora",
        Kind.ATTACH,
        "pipe.load_lora",
        Argument(0, "module"),
        LORA,
        when=(ALPHA, is_positive),
        countable=True,
    ),
    EntryPoint("diffsynth.*", "*.clear_lora", Kind.DETACH, "pipe.clear_lora"),
    *(
        EntryPoint("diffsynth.*", name, kind, name.replace("*", "loader"), FIRST, STATE, when=(ALPHA, sign))
        for name in LOADERS
        for kind, sign in ((Kind.FUSE, is_positive), (Kind.UNFUSE, is_negative))
    ),
    # 1.1: the method; it moves every model to the CPU and back, and quantizes where it is told to.
    EntryPoint(
        "diffsynth.*",
        "*.enable_vram_management",
        Kind.QUANTIZE,
        "pipe.enable_vram_management",
        when=(Argument(4, "enable_dit_fp8_computation"), bool),
        needs_fp8=True,
    ),
    EntryPoint("diffsynth.*", "*.enable_vram_management", Kind.OFFLOAD, "pipe.enable_vram_management"),
    EntryPoint("diffsynth.*", "*.enable_cpu_offload", Kind.OFFLOAD, "pipe.enable_cpu_offload"),
    # 2.x: the function
    EntryPoint(
        "diffsynth.*",
        "enable_vram_management",
        Kind.QUANTIZE,
        "enable_vram_management",
        FIRST,
        when=(CONFIG, quantizes),
    ),
    EntryPoint(
        "diffsynth.*",
        "enable_vram_management",
        Kind.OFFLOAD,
        "enable_vram_management",
        FIRST,
        when=(CONFIG, offloads),
    ),
    EntryPoint(
        "diffsynth.*",
        "*.quantize_model",
        Kind.QUANTIZE,
        "QuantizeConfig.quantize_model",
        FIRST,
        when=(Argument(ATTRIBUTE, "load_prequantized"), is_false),
        filters=(Argument(ATTRIBUTE, "target_modules"), Argument(ATTRIBUTE, "exclude_modules")),
    ),
    EntryPoint(
        "diffsynth.*",
        "*.compile_pipeline",
        Kind.COMPILE,
        "pipe.compile_pipeline",
        parts=Argument(3, "compile_models"),
    ),
)

DIFFUSERS = (
    *(
        EntryPoint("diffusers.*", f"*.{name}", Kind.LOAD, name, RESULT)
        for name in ("from_pretrained", "from_single_file")
    ),
    EntryPoint(
        "diffusers.*",
        "*.load_lora_weights",
        Kind.ATTACH,
        "pipe.load_lora_weights",
        adapter=ADAPTER_NAME,
        source=DIFFUSERS_FILE,
        when=(Argument(2, "hotswap"), is_false),
        countable=True,
    ),
    EntryPoint(
        "diffusers.*",
        "*.load_lora_adapter",
        Kind.ATTACH,
        "model.load_lora_adapter",
        SELF,
        (Argument(KEYWORD, "adapter_name"),),
        source=DIFFUSERS_FILE,
        when=(KEYWORD_HOTSWAP, is_false),
        countable=True,
    ),
    EntryPoint(
        "diffusers.*",
        "*.load_attn_procs",
        Kind.ATTACH,
        "model.load_attn_procs",
        SELF,
        (Argument(KEYWORD, "adapter_name"),),
        countable=True,
    ),
    EntryPoint("diffusers.*", "*.add_adapter", Kind.ATTACH, "model.add_adapter", SELF, ADAPTER_NAME),
    # One row for pipelines and models: a model has no components, so it is meant itself.
    EntryPoint(
        "diffusers.*",
        "*.fuse_lora",
        Kind.FUSE,
        "pipe.fuse_lora",
        parts=Argument(0, "components"),
        picks=Argument(3, "adapter_names"),
    ),
    EntryPoint("diffusers.*", "*.set_adapters", Kind.SELECT, "pipe.set_adapters"),
    EntryPoint("diffusers.*", "*.unfuse_lora", Kind.UNFUSE, "pipe.unfuse_lora", parts=Argument(0, "components")),
    EntryPoint("diffusers.*", "*.unload_lora_weights", Kind.DETACH, "pipe.unload_lora_weights"),
    EntryPoint("diffusers.*", "*.unload_lora", Kind.DETACH, "model.unload_lora", SELF),
    EntryPoint(
        "diffusers.*",
        "*.delete_adapters",
        Kind.DETACH,
        "pipe.delete_adapters",
        adapter=(Argument(0, "adapter_names"),),
    ),
    EntryPoint("diffusers.*", "*.enable_lora_hotswap", Kind.HOTSWAP, "pipe.enable_lora_hotswap"),
    *(
        EntryPoint("diffusers.*", f"*.{name}", Kind.OFFLOAD, f"pipe.{name}")
        for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload")
    ),
    EntryPoint("diffusers.*", "*.remove_all_hooks", Kind.ONLOAD, "pipe.remove_all_hooks"),
    EntryPoint("diffusers.*", "*.dequantize", Kind.DEQUANTIZE, "model.dequantize", SELF),
    EntryPoint(
        "diffusers.*",
        "apply_group_offloading",
        Kind.OFFLOAD,
        "apply_group_offloading",
        Argument(0, "module"),
    ),
    EntryPoint(
        "diffusers.*",
        "*.enable_layerwise_casting",
        Kind.QUANTIZE,
        "model.enable_layerwise_casting",
        SELF,
        when=(Argument(0, "storage_dtype"), is_float8_or_default),
        spares_adapters=True,
    ),
    EntryPoint(
        "diffusers.*",
        "*.compile_repeated_blocks",
        Kind.COMPILE,
        "model.compile_repeated_blocks",
        SELF,
    ),
)

PEFT = (
    EntryPoint("peft.*", "get_peft_model", Kind.ATTACH, "get_peft_model", FIRST, (Argument(2, "adapter_name"),)),
    EntryPoint(
        "peft.*",
        "inject_adapter_in_model",
        Kind.ATTACH,
        "inject_adapter_in_model",
        Argument(1, "model"),
        (Argument(2, "adapter_name"),),
    ),
    EntryPoint(
        "peft.*",
        "*.from_pretrained",
        Kind.ATTACH,
        "PeftModel.from_pretrained",
        FIRST,
        (Argument(2, "adapter_name"),),
    ),
    *(
        EntryPoint("peft.*", f"*.{name}", Kind.ATTACH, f"model.{name}", SELF, adapter)
        for name, adapter in (
            ("load_adapter", ADAPTER_NAME),
            ("add_adapter", (Argument(0, "adapter_name"),)),
        )
    ),
    *(
        EntryPoint("peft.*", f"*.{name}", Kind.FUSE, f"model.{name}", SELF, picks=picks)
        for name, picks in (("merge_adapter", Argument(0, "adapter_names")), ("merge_and_unload", None))
    ),
    EntryPoint("peft.*", "*.set_adapter", Kind.SELECT, "model.set_adapter", SELF),
    EntryPoint("peft.*", "*.unmerge_adapter", Kind.UNFUSE, "model.unmerge_adapter", SELF),
    EntryPoint("peft.*", "*.unload", Kind.DETACH, "model.unload", SELF),
    EntryPoint(
        "peft.*",
        "*.delete_adapter",
        Kind.DETACH,
        "model.delete_adapter",
        SELF,
        (Argument(0, "adapter_name"),),
    ),
)

TRANSFORMERS = (
    EntryPoint(
        "transformers.modeling_utils",
        "PreTrainedModel.from_pretrained",
        Kind.LOAD,
        "from_pretrained",
        RESULT,
    ),
    *(
        EntryPoint(
            "transformers.integrations.peft",
            f"PeftAdapterMixin.{name}",
            Kind.ATTACH,
            f"model.{name}",
            SELF,
            ADAPTER_NAME,
            when=(KEYWORD_HOTSWAP, is_false),
        )
        for name in ("add_adapter", "load_adapter")
    ),
)

QUANTIZERS = (
    EntryPoint(
        "torchao.*",
        "quantize_",
        Kind.QUANTIZE,
        "quantize_",
        FIRST,
        filters=(Argument(2, "filter_fn"),),
    ),
    EntryPoint(
        "optimum.*",
        "quantize",
        Kind.QUANTIZE,
        "quantize",
        FIRST,
        filters=(Argument(4, "include"), Argument(5, "exclude")),
    ),
)

OWN = (
    EntryPoint(
        "pytest_loraperf.backends.streaming.pipeline",
        "stream_blocks",
        Kind.OFFLOAD,
        "stream_blocks",
        Argument(0, "pipe"),
    ),
)

TORCH = (
    EntryPoint("torch", "compile", Kind.COMPILE, "torch.compile", FIRST),
    EntryPoint("torch.nn.modules.module", "Module.compile", Kind.COMPILE, "model.compile", SELF),
)

ENTRY_POINTS = (*DIFFSYNTH, *DIFFUSERS, *PEFT, *TRANSFORMERS, *QUANTIZERS, *OWN, *TORCH)

READERS_OF_ADAPTERS = (("diffsynth.*", "*.convert_state_dict"), ("diffsynth.*", "*.get_name_dict"))
"""What reads an adapter inside of a call: what it returns has a key for each layer that the adapter is for."""
