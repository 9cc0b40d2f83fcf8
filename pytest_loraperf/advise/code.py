"""The code to paste for a strategy: DiffSynth's own calls in the order of its steps, from loading to the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.models import ModelSpec, Pretrained, Synthetic, UserBuilt
from pytest_loraperf.registry import QWEN_IMAGE
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import Step, StepKind, Strategy

BASE, EDIT = "Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit"
PARTS = (
    "transformer/diffusion_pytorch_model*.safetensors",
    "text_encoder/model*.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
UNNAMED = "lora.safetensors"
"""The adapter in code for a measurement that named none."""
BACKEND = "diffsynth"


@dataclass(frozen=True)
class Lora:
    """An adapter file as code names it; ``plain`` where DiffSynth's own loader reads its keys."""

    path: str = UNNAMED
    scale: float = 1.0
    plain: bool = True


@dataclass(frozen=True)
class Setting:
    """What a strategy was measured with: ``device`` is torch's name of where it computes."""

    model: ModelSpec
    loras: Sequence[Lora]
    request: Request
    device: str


@dataclass
class _Page:
    """Code as it grows: its imports, and its lines."""

    setting: Setting
    strategy: Strategy
    imports: set[str] = field(default_factory=lambda: {"import torch"})
    lines: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        return _quoted(self.setting.device)

    @property
    def offloads(self) -> bool:
        """Whether weights wait in host memory, so that set-up never holds the model on the device."""
        return self.strategy.has(StepKind.OFFLOAD)

    def text(self) -> str:
        """Return the whole, imports first; those of a module stand in one line."""
        plain = sorted(each for each in self.imports if each.startswith("import "))
        by_module: dict[str, list[str]] = {}
        for each in self.imports - set(plain):
            module, _, name = each.partition(" import ")
            by_module.setdefault(module, []).append(name)
        froms = [f"{module} import {', '.join(sorted(names))}" for module, names in sorted(by_module.items())]
        return "\n".join([*plain, *froms, "", *self.lines]) + "\n"


def code_for(strategy: Strategy, setting: Setting) -> str:
    """Return a program that builds what was measured, step by step, and saves ``output.png``, or ``output.mp4``.

    ``strategy`` is the recipe: its steps name their schemes, as those of ``Recipe.strategy`` do.

    Raises:
        LoraperfError: a step's scheme is none of DiffSynth's.
    """
    page = _Page(setting, strategy)
    page.lines += _built(page)
    for step in strategy.steps:
        page.lines += ["", *_STEPS[StepKind(step.kind)](page, step)]
    page.lines += ["", *_generated(page)]
    return page.text()


def step_lines(step: Step, strategy: Strategy, setting: Setting) -> list[str]:
    """Return the lines of one step alone."""
    return list(_STEPS[StepKind(step.kind)](_Page(setting, strategy), step))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _built(page: _Page) -> Iterator[str]:
    """Yield what gives ``pipe``, its weights in host memory where a step offloads them."""
    model = page.setting.model
    place = "cpu" if page.offloads else page.setting.device
    if isinstance(model, UserBuilt):
        module, colon, name = model.name.partition(":")
        if colon:
            page.imports.add(f"from {module} import {name}")
        yield f"pipe = {name or model.name}(device={_quoted(place)})"
        if page.offloads:
            yield f"pipe.device = {page.device}"
        return
    if isinstance(model, Synthetic):
        yield f"# {model} was measured; put in your own model."
        if model.pipeline != QWEN_IMAGE:
            yield f"pipe = ...  # a {model.pipeline} pipeline, its weights on {place}"
            return
        model = Pretrained(BASE)
    page.imports |= {
        f"from diffsynth.pipelines.qwen_image import {name}" for name in ("ModelConfig", "QwenImagePipeline")
    }
    if page.offloads:
        yield 'home = {"computation_device": "cpu"}  # the card never holds the whole model'
    yield "pipe = QwenImagePipeline.from_pretrained("
    yield "    torch_dtype=torch.bfloat16,"
    yield f"    device={page.device},"
    yield "    model_configs=["
    for part in PARTS:
        yield f"        {_files(page, model, part, weights=True)},"
    yield "    ],"
    if model.folder is not None:
        yield f"    tokenizer_config={_files(page, model, 'tokenizer/')},"
    if _edits(model):
        yield f"    processor_config={_files(page, model, 'processor/')},"
    yield ")"


def _edits(model: Pretrained) -> bool:
    folder = model.folder
    return "edit" in model.source.lower() if folder is None else (folder / "processor").is_dir()


def _files(page: _Page, model: Pretrained, pattern: str, *, weights: bool = False) -> str:
    if model.folder is not None:
        page.imports.add("from glob import glob")
        where = f"path=sorted(glob({_quoted(str(model.folder / pattern))}))"
        if pattern.endswith("/"):
            where = f"path={_quoted(str(model.folder / pattern))}"
    else:
        # The edit models share all but the transformer, as in DiffSynth's examples.
        source = EDIT if pattern == "processor/" else model.source if pattern == PARTS[0] else BASE
        where = f"model_id={_quoted(source)}, origin_file_pattern={_quoted(pattern)}"
    return f"ModelConfig({where}{', **home' if weights and page.offloads else ''})"


def _loras(page: _Page) -> Iterator[tuple[Lora, str, str]]:
    """Yield each adapter, its path in code, and its scale."""
    return ((lora, _quoted(lora.path), f"{lora.scale:g}") for lora in page.setting.loras or (Lora(),))


def _converted(page: _Page, path: str, device: str) -> Iterator[str]:
    page.imports.add("from pytest_loraperf.lora import lora_state_dict")
    model = page.setting.model
    is_qwen = isinstance(model, Pretrained) or (isinstance(model, Synthetic) and model.pipeline == QWEN_IMAGE)
    # Published files name the layers of some pipelines otherwise, which their own loader knows.
    rename = "" if is_qwen else ", pipe.lora_loader().convert_state_dict"
    yield f"lora = lora_state_dict({path}, pipe.dit, pipe.torch_dtype, {device}{rename})"


def _attach(page: _Page, _: Step) -> Iterator[str]:
    yield "# Attach the LoRA: it is added at run time, and can be taken off again."
    yield "pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)"
    for lora, path, scale in _loras(page):
        if lora.plain:
            yield f"pipe.load_lora(pipe.dit, {path}, alpha={scale}, hotload=True)"
        else:
            yield from _converted(page, path, "pipe.device")
            yield f"pipe.load_lora(pipe.dit, state_dict=lora, alpha={scale}, hotload=True)"
            yield "del lora  # the layers have it"


def _fuse(page: _Page, _: Step) -> Iterator[str]:
    page.imports.add("from diffsynth.utils.lora import GeneralLoRALoader")
    yield "# Fuse the LoRA into the bf16 weights: it costs nothing from here on."
    yield "loader = GeneralLoRALoader(torch_dtype=pipe.torch_dtype, device=pipe.device)"
    for lora, path, scale in _loras(page):
        if lora.plain:
            page.imports.add("from diffsynth.core import load_state_dict")
            yield f"loader.fuse_lora_to_base_model(pipe.dit, load_state_dict({path}), alpha={scale})"
        else:
            yield from _converted(page, path, '"cpu"')
            yield f"loader.fuse_lora_to_base_model(pipe.dit, lora, alpha={scale})"


def _quantize(page: _Page, step: Step) -> Iterator[str]:
    if step.scheme == "torchao_fp8_w8a8":
        yield from _torchao(page)
    elif step.scheme in ("fp8_storage", "fp8_compute"):
        yield from _managed(page, computes=step.scheme == "fp8_compute")
    else:
        raise LoraperfError(f"no code for {step}: it is no scheme of the backend {BACKEND}")


def _torchao(page: _Page) -> Iterator[str]:
    yield "# Quantize: fp8 weights and activations, by torchao."
    kinds = [step.kind for step in page.strategy.steps]
    if StepKind.ATTACH in kinds[: kinds.index(StepKind.QUANTIZE)]:
        page.imports.add("from pytest_loraperf.backends.quantization import quantize_below_lora")
        yield "# QuantizeConfig would replace the layers that hold the LoRA, and lose it; this hands it back."
        yield 'quantize_below_lora(pipe, "torchao_fp8_w8a8")'
        return
    page.imports.add("from diffsynth.core.quant import QuantizeConfig")
    # By default torchao switches on a tuning of inductor that takes minutes a block.
    yield 'plain = {"set_inductor_config": False}'
    yield 'QuantizeConfig(method="torchao_fp8_w8a8", backend_config_kwargs=plain).quantize_model(pipe.dit)'


def _managed(page: _Page, *, computes: bool) -> Iterator[str]:
    """DiffSynth's managed Linears keep weights in one dtype and compute in another."""
    page.imports.add("from diffsynth.core import AutoWrappedLinear")
    yield f"# Quantize: fp8 weights, {'fp8' if computes else 'bf16'} compute; a LoRA that is attached stays bf16."
    yield "pipe.dit = pipe.enable_lora_hot_loading(pipe.dit)"
    yield "fp8, bf16 = torch.float8_e4m3fn, torch.bfloat16" if not computes else "fp8 = torch.float8_e4m3fn"
    yield "for linear in pipe.dit.modules():"
    yield "    if isinstance(linear, AutoWrappedLinear):"
    at_rest = ", ".join(["fp8", "pipe.device"] * 3)
    yield f"        linear.set_dtype_and_device({at_rest}, {'fp8' if computes else 'bf16'}, pipe.device)"
    if computes:
        yield "        linear.enable_fp8 = True"
    if page.offloads:
        yield '        linear.to(device=pipe.device).to(dtype=fp8).to(device="cpu")'
    else:
        yield "        linear.to(dtype=fp8)"


def _offload(page: _Page, step: Step) -> Iterator[str]:
    size = _bytes(step.card)
    if step.scheme == "stream":
        page.imports.add("from pytest_loraperf.backends.streaming import stream_blocks")
        yield "# Offload last: blocks wait in pinned host memory, and come to a card of this size for their call."
        yield f"stream_blocks(pipe, {size})"
    elif step.scheme == "diffsynth":
        page.imports.add("from pytest_loraperf.backends.offloading import offload")
        yield "# Offload last: DiffSynth's VRAM management, for a card of this size."
        yield f"offload(pipe, {size})"
    else:
        raise LoraperfError(f"no code for {step}: it is no scheme of the backend {BACKEND}")


def _bytes(card: int | None) -> str:
    if card is None:
        return "torch.cuda.get_device_properties(0).total_memory"
    whole, rest = divmod(card, 2**30)
    return str(card) if rest else f"{whole} * 2**30"


def _compile(_: _Page, __: Step) -> Iterator[str]:
    yield "# Compile last: the first image takes longer, and later ones less."
    yield "pipe.compile_pipeline(dynamic=None)"


_STEPS: dict[StepKind, Callable[[_Page, Step], Iterator[str]]] = {
    StepKind.ATTACH: _attach,
    StepKind.FUSE: _fuse,
    StepKind.QUANTIZE: _quantize,
    StepKind.OFFLOAD: _offload,
    StepKind.COMPILE: _compile,
}


def _generated(page: _Page) -> Iterator[str]:
    request = page.setting.request
    arguments = {
        "prompt": _quoted(request.prompt),
        "negative_prompt": _quoted(request.negative_prompt) if request.negative_prompt else None,
        "cfg_scale": f"{request.cfg:g}",
        "height": str(request.height),
        "width": str(request.width),
        "num_inference_steps": str(request.steps),
        "seed": str(request.seed),
        **{name: repr(value) for name, value in request.extra.items()},
    }
    if request.edit_image is not None:
        page.imports.add("from PIL import Image")
        arguments["edit_image"] = f'Image.open({_quoted(str(Path(request.edit_image)))}).convert("RGB")'
    video = "num_frames" in request.extra
    yield f"{'video' if video else 'image'} = pipe("
    for name, value in arguments.items():
        if value is not None:
            yield f"    {name}={value},"
    yield ")"
    if video:
        page.imports.add("from diffsynth.utils.data import save_video")
        yield 'save_video(video, "output.mp4", fps=15, quality=5)'
    else:
        yield 'image.save("output.png")'
