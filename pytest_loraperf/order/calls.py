"""The calls that matter, as data: which library's call does what to which model, and on what condition.

This is the linter's table, by the names and keywords that stand in a source. The recorder has its own,
``entry_points``: where a call is defined, and conditions on the values it gets. Few columns are the same, so
one table of both would be no clearer; a test holds the two to the same kind for the same call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pytest_loraperf.order.events import Kind

RECEIVER = -1
"""The model is what the method is called on; other numbers are positions of arguments."""

MAIN_COMPONENTS = frozenset(
    {"dit", "transformer", "unet", "model", "base_model", "module", "_orig_mod", "diffusion_model", "forward"}
)
"""Attributes that are the denoiser of a pipeline (or the model in a wrapper): one history with their owner."""

OTHER_COMPONENTS = ("text_encoder", "vae", "clip", "t5", "tokenizer", "image_encoder", "processor", "controlnet")
"""Words by which a file or a mapping names a component that a LoRA's base weights are not in."""


class Form(StrEnum):
    """How a call is written: ``x.name(…)`` on a model (or its pipeline), or ``name(x, …)``."""

    METHOD = "method"
    FUNCTION = "function"


class Test(StrEnum):
    """What the value of a keyword must be for a row of the table to apply."""

    TRUE = "true"
    MAYBE_TRUE = "maybe true"
    FALSE = "false"
    FP8 = "fp8"
    NOT_FP8 = "not fp8"
    WIDE = "wide"
    NEGATIVE = "negative"
    IGNORE = "ignore"


@dataclass(frozen=True)
class Given:
    """A condition on an argument, named by its keyword or its position."""

    argument: str | int
    test: Test


@dataclass(frozen=True)
class Operation:
    """One call to know; of the rows with its name, the first whose condition holds counts.

    ``kind`` is None where the call is known to change nothing that the rules ask about. ``model`` is where the
    model stands; ``adapters`` are the arguments that may name the adapter, the first that is given counts.
    ``modules`` are where a function of a common name must come from, ``evidence`` what else makes it count: that
    the model is known as one. ``manages`` puts the model under VRAM management, which makes DiffSynth's
    ``load_lora`` attach (``hotloads``) where it otherwise fuses. ``filters`` are the arguments that can leave
    adapters out of a quantization, which ``spares_adapters`` does by itself. ``returns_model``: the result is the
    model itself. ``undoes`` names the calls whose work this one can take back, where it cannot take back all.
    """

    library: str
    name: str
    form: Form
    kind: Kind | None
    model: int = RECEIVER
    given: Given | None = None
    adapters: tuple[str | int, ...] = ()
    filters: tuple[str | int, ...] = ()
    modules: tuple[str, ...] = ()
    evidence: bool = False
    spares_adapters: bool = False
    needs_fp8: bool = False
    manages: bool = False
    hotloads: bool = False
    returns_model: bool = False
    undoes: tuple[str, ...] = ()


M, F = Form.METHOD, Form.FUNCTION
_FP8_COMPUTATION = Given("enable_dit_fp8_computation", Test.TRUE)
_HOTSWAPPED = Given("hotswap", Test.MAYBE_TRUE)
_LORA = ("lora_config", "state_dict", "path", "file_path", 1)

OPERATIONS: tuple[Operation, ...] = (
    # DiffSynth: 1.1 manages a pipeline's VRAM, 2.x a module's; load_lora fuses unless the module is managed.
    Operation("diffsynth", "enable_vram_management", M, Kind.QUANTIZE, given=_FP8_COMPUTATION, needs_fp8=True,
              manages=True),
    Operation("diffsynth", "enable_vram_management", M, Kind.QUANTIZE, given=Given("vram_config", Test.FP8),
              manages=True),
    Operation("diffsynth", "enable_vram_management", M, Kind.OFFLOAD, manages=True),
    Operation("diffsynth", "enable_vram_management", F, Kind.QUANTIZE, 0, Given("vram_config", Test.FP8),
              manages=True, returns_model=True),
    Operation("diffsynth", "enable_vram_management", F, Kind.QUANTIZE, 0, Given("module_config", Test.FP8),
              manages=True, returns_model=True),
    Operation("diffsynth", "enable_vram_management", F, Kind.OFFLOAD, 0, manages=True, returns_model=True),
    Operation("diffsynth", "enable_lora_hot_loading", M, None, 0, manages=True, returns_model=True),
    Operation("diffsynth", "enable_lora_magic", M, None, manages=True),
    Operation("diffsynth", "load_lora", M, Kind.ATTACH, 0, Given("hotload", Test.TRUE), adapters=_LORA),
    Operation("diffsynth", "load_lora", M, Kind.FUSE, 0, Given("hotload", Test.FALSE), adapters=_LORA),
    Operation("diffsynth", "load_lora", M, Kind.FUSE, 0, adapters=_LORA, hotloads=True),
    Operation("diffsynth", "clear_lora", M, Kind.DETACH),
    Operation("diffsynth", "fuse_lora_to_base_model", M, Kind.UNFUSE, 0, Given("alpha", Test.NEGATIVE)),
    Operation("diffsynth", "fuse_lora_to_base_model", M, Kind.UNFUSE, 0, Given(2, Test.NEGATIVE)),
    Operation("diffsynth", "fuse_lora_to_base_model", M, Kind.FUSE, 0, adapters=("state_dict", 1)),
    Operation("diffsynth", "quantize_model", M, Kind.QUANTIZE, 0, returns_model=True),
    Operation("diffsynth", "compile_pipeline", M, Kind.COMPILE),
    # diffusers
    Operation("diffusers", "load_lora_weights", M, None, given=_HOTSWAPPED),
    Operation("diffusers", "load_lora_weights", M, Kind.ATTACH, adapters=("adapter_name", 0)),
    Operation("diffusers", "load_lora_adapter", M, None, given=_HOTSWAPPED),
    Operation("diffusers", "load_lora_adapter", M, Kind.ATTACH, adapters=("adapter_name", 0)),
    Operation("diffusers", "load_attn_procs", M, Kind.ATTACH, adapters=("adapter_name", 0)),
    Operation("diffusers", "fuse_lora", M, Kind.FUSE, adapters=("adapter_names", 3)),
    Operation("diffusers", "set_adapters", M, Kind.SELECT),
    Operation("diffusers", "unfuse_lora", M, Kind.UNFUSE),
    Operation("diffusers", "unload_lora_weights", M, Kind.DETACH),
    Operation("diffusers", "unload_lora", M, Kind.DETACH),
    Operation("diffusers", "delete_adapters", M, Kind.DETACH, adapters=("adapter_names", 0)),
    Operation("diffusers", "enable_model_cpu_offload", M, Kind.OFFLOAD),
    Operation("diffusers", "enable_sequential_cpu_offload", M, Kind.OFFLOAD),
    Operation("diffusers", "enable_group_offload", M, Kind.OFFLOAD),
    Operation("diffusers", "apply_group_offloading", F, Kind.OFFLOAD, 0),
    Operation("diffusers", "remove_all_hooks", M, Kind.ONLOAD),
    Operation("diffusers", "dequantize", M, Kind.DEQUANTIZE, returns_model=True),
    Operation("diffusers", "enable_layerwise_casting", M, None, given=Given("storage_dtype", Test.NOT_FP8)),
    Operation("diffusers", "enable_layerwise_casting", M, Kind.QUANTIZE, spares_adapters=True),
    Operation("diffusers", "apply_layerwise_casting", F, Kind.QUANTIZE, 0, Given("storage_dtype", Test.FP8)),
    Operation("diffusers", "enable_lora_hotswap", M, None, given=Given("check_compiled", Test.IGNORE)),
    Operation("diffusers", "enable_lora_hotswap", M, Kind.HOTSWAP),
    Operation("diffusers", "compile_repeated_blocks", M, Kind.COMPILE),
    # peft, and transformers' integration of it
    Operation("peft", "get_peft_model", F, Kind.ATTACH, 0, adapters=("adapter_name", 2), returns_model=True),
    Operation("peft", "inject_adapter_in_model", F, Kind.ATTACH, 1, returns_model=True),
    Operation("peft", "add_adapter", M, Kind.ATTACH, adapters=("adapter_name",)),
    Operation("peft", "load_adapter", M, None, given=_HOTSWAPPED),
    Operation("peft", "load_adapter", M, Kind.ATTACH, adapters=("adapter_name", 1)),
    Operation("peft", "set_adapter", M, Kind.SELECT),
    Operation("peft", "delete_adapter", M, Kind.DETACH, adapters=("adapter_name", 0)),
    Operation("peft", "merge_and_unload", M, Kind.FUSE, returns_model=True),
    Operation("peft", "merge_adapter", M, Kind.FUSE, adapters=("adapter_names", 0)),
    Operation("peft", "unmerge_adapter", M, Kind.UNFUSE),
    Operation("peft", "unload", M, Kind.DETACH, returns_model=True),
    # quantizers
    Operation("torchao", "quantize_", F, Kind.QUANTIZE, 0, filters=("filter_fn", 2)),
    Operation("torchao", "autoquant", F, Kind.QUANTIZE, 0, returns_model=True),
    Operation("torch", "quantize_dynamic", F, Kind.QUANTIZE, 0, filters=("qconfig_spec", 1), returns_model=True),
    Operation("optimum-quanto", "quantize", F, Kind.QUANTIZE, 0, filters=("include", "exclude"),
              modules=("optimum.quanto", "quanto", "modelopt"), evidence=True, returns_model=True),
    Operation("optimum-quanto", "quantize_model", F, Kind.QUANTIZE, 0, evidence=True, returns_model=True),
    Operation("torch", "to", M, Kind.QUANTIZE, given=Given(0, Test.FP8), returns_model=True),
    Operation("torch", "to", M, Kind.QUANTIZE, given=Given(1, Test.FP8), returns_model=True),
    Operation("torch", "to", M, Kind.QUANTIZE, given=Given("dtype", Test.FP8), returns_model=True),
    Operation("torch", "to", M, Kind.DEQUANTIZE, given=Given(0, Test.WIDE), undoes=("to",), returns_model=True),
    Operation("torch", "to", M, Kind.DEQUANTIZE, given=Given(1, Test.WIDE), undoes=("to",), returns_model=True),
    Operation("torch", "to", M, Kind.DEQUANTIZE, given=Given("dtype", Test.WIDE), undoes=("to",),
              returns_model=True),
    # compiling and offloading
    Operation("torch", "compile", F, Kind.COMPILE, 0, modules=("torch",), returns_model=True),
    Operation("torch", "compile", M, Kind.COMPILE),
    Operation("pytest-loraperf", "stream_blocks", F, Kind.OFFLOAD, 0, modules=("pytest_loraperf",)),
    Operation("accelerate", "cpu_offload", F, Kind.OFFLOAD, 0, modules=("accelerate",)),
    Operation("accelerate", "cpu_offload_with_hook", F, Kind.OFFLOAD, 0, modules=("accelerate",)),
)  # fmt: skip


def _by_name() -> Mapping[tuple[str, Form], tuple[Operation, ...]]:
    found: dict[tuple[str, Form], tuple[Operation, ...]] = defaultdict(tuple)
    for each in OPERATIONS:
        found[each.name, each.form] += (each,)
    return dict(found)


BY_NAME = _by_name()

COMPILE_KEYWORDS = frozenset({"mode", "fullgraph", "dynamic", "backend", "options", "disable"})
"""What ``torch.nn.Module.compile`` takes: another keyword, or an argument by position, is another ``compile``."""

LOADERS = frozenset({"from_pretrained", "from_single_file"})
"""Class methods that return a newly loaded model or pipeline."""

SHARERS = frozenset({"from_pipe", "from_model_manager"})
"""Class methods that return another pipeline over the same weights: one history with their first argument."""

WIDE_DTYPES = frozenset({"bfloat16", "float16", "float32", "half", "float"})
"""Dtypes of full-precision weights."""

QUANTIZED_MODELS = ("Nunchaku",)
"""Classes (by the start of the name) that hold quantized weights only."""

PEFT_MODELS = ("PeftModel", "PeftMixedModel")
"""Classes (by the start of the name) whose ``from_pretrained(model, …)`` attaches an adapter to the model."""

QUANTIZATION_CONFIGS = frozenset(
    {
        "BitsAndBytesConfig",
        "TorchAoConfig",
        "QuantoConfig",
        "GGUFQuantizationConfig",
        "PipelineQuantizationConfig",
        "GPTQConfig",
        "AwqConfig",
        "HqqConfig",
        "EetqConfig",
        "FineGrainedFP8Config",
        "NVIDIAModelOptConfig",
        "QuantizationConfig",
        "QuantizeConfig",
        "MixedQuantizeConfig",
    }
)
LOAD_IN_BITS = ("load_in_8bit", "load_in_4bit")
DTYPE_KEYWORDS = ("torch_dtype", "dtype")
QUANTIZATION_KEYWORDS = ("quantization_config", "quantize_config", "quantize")
QUANTIZER_FILTERS = ("target_modules", "exclude_modules")
STORAGE_KEYWORDS = ("offload_dtype", "onload_dtype", "preparing_dtype")
"""A DiffSynth ``ModelConfig``'s dtypes of the weights at rest."""

MANAGING_KEYWORDS = ("onload_dtype", "onload_device", "preparing_dtype", "preparing_device", "computation_dtype",
                     "computation_device", "vram_config")  # fmt: skip
"""Keywords of a 2.x ``ModelConfig`` that put the model under VRAM management as it is loaded."""

RETURNING_RECEIVER = frozenset(
    {
        "to",
        "cuda",
        "cpu",
        "eval",
        "train",
        "half",
        "float",
        "bfloat16",
        "requires_grad_",
        "to_empty",
        "type",
        "result",
    }
)
"""Methods that return what they are called on; a future is what comes of it."""

RETURNING_ARGUMENT = frozenset(
    {
        "prepare",
        "unwrap_model",
        "prepare_model_for_kbit_training",
        "dispatch_model",
        "extract_model_from_parallel",
        "DataParallel",
        "DistributedDataParallel",
        "DDP",
        "FSDP",
        "cast",
        "Parameter",
        "tqdm",
    }
)
"""Calls that return their first argument, or wrap it."""

PARTS = frozenset({"modules", "children", "parameters", "named_modules", "named_children", "named_parameters"})
"""Methods that yield the parts of a model: what is done to them is done to the model."""

PASSING_ON = {"to_thread": 0, "submit": 0, "apply_async": 0, "run_in_executor": 1, "call_soon": 0, "run_sync": 0}
"""Calls that call one of their arguments, at this position, with those that follow it."""

CALLING_LATER = frozenset({"callback", "push_async_callback"})
"""Methods of ``contextlib.ExitStack`` that call their first argument, with the others, when the stack is left."""

TRAINING = (
    "prepare_model_for_kbit_training", "Trainer(", ".backward(", "optimizer.step(", "print_trainable_parameters(",
    "is_trainable=True", "torch.optim", "_optimizer(",
)  # fmt: skip
"""Text that shows that a file trains: adapters on a quantized model are the right order there (QLoRA)."""

_BREAKING = (Kind.ATTACH, Kind.FUSE, Kind.HOTSWAP)
_LORA_CALLS = frozenset(each.name for each in OPERATIONS if each.kind in _BREAKING)
WORDS = tuple(
    sorted({*_LORA_CALLS, *PEFT_MODELS, "oRALoader", "oraLoader", "ora_loader", "enable_dit_fp8_computation"})
)
"""Every rule needs a LoRA, or DiffSynth 1.1's fp8: a file in which none of these stands has no finding."""
