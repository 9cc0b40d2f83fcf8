"""One generation by a DiffSynth pipeline of either line: both are called alike."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from pytest_loraperf.backends.latents_only import decoder, has_image
from pytest_loraperf.backends.protocol import Generation
from pytest_loraperf.backends.quiet import warnings_shown
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.measure.timing import NO_TICK, Tick
from pytest_loraperf.request import MIN_STEPS, Request


def check_steps(pipeline: Any, request: Request) -> None:
    """Refuse too few steps for Qwen-Image; distilled models of others need but one.

    Raises:
        LoraperfError: the message says how many there must be.
    """
    name = type(pipeline).__name__
    if name.startswith("QwenImage") and request.steps < MIN_STEPS:
        raise LoraperfError(f"request: steps={request.steps}; {name}'s scheduler gives NaN below {MIN_STEPS}")


FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "cfg_scale": "cfg",
    "height": "height",
    "width": "width",
    "num_inference_steps": "steps",
    "seed": "seed",
    "edit_image": "edit_image",
}
"""The arguments of DiffSynth's ``__call__`` that a request has fields for."""


def check_extra(
    pipeline: Any,
    request: Request,
    fields: Mapping[str, str] = FIELDS,
    used: Collection[str] = ("progress_bar_cmd",),
) -> None:
    """Refuse what ``extra`` has and the pipeline's call does not take, or gets from elsewhere.

    Args:
        pipeline: the pipeline that is to be called.
        request: the request.
        fields: the fields of the request that some arguments of the call come from.
        used: arguments that the plugin sets, to see the steps and the latents.

    Raises:
        LoraperfError: the message names the field, or lists what the pipeline takes.
    """
    for name in request.extra:
        if name in fields:
            raise LoraperfError(f"request: extra: {name!r} is the request's field {fields[name]}; give it there")
        if name in used:
            raise LoraperfError(f"request: extra: {name!r} is set by the plugin; leave it out")
    taken = _taken(pipeline.__call__) if request.extra else None
    unknown = [] if taken is None else [name for name in request.extra if name not in taken]
    if taken is not None and unknown:
        raise LoraperfError(
            f"request: extra: {type(pipeline).__name__} takes no {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(taken)}"
        )


def _taken(call: Callable[..., Any] | None) -> list[str] | None:
    """Return the names of what a call takes, and of what those take that wrap it; None where it takes any."""
    taken: dict[str, None] = {}
    takes_any = False
    while call is not None:
        try:
            parameters = inspect.signature(call, follow_wrapped=False).parameters
        except (TypeError, ValueError):  # it has none that Python could tell
            return None
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        taken |= {
            name: None
            for name, each in parameters.items()
            if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY} and name != "self"
        }
        call = getattr(call, "__wrapped__", None)
    return None if takes_any else list(taken)


def check_size(pipeline: Any, request: Request, factors: Mapping[str, int]) -> None:
    """Refuse a height or width that a pipeline would round to a multiple of its factor, in pixels.

    Raises:
        LoraperfError: the message says which sizes are near.
    """
    for side, factor in factors.items():
        value = getattr(request, side)
        below = value // factor * factor
        if value != below:
            near = " or ".join(str(size) for size in (below, below + factor) if size)
            raise LoraperfError(
                f"request: {side}={value}; {type(pipeline).__name__} rounds to multiples of {factor}: write {near}"
            )


def check(pipeline: Any, request: Request) -> None:
    """Refuse what ``generate`` refuses, before it is called.

    Raises:
        LoraperfError: the message says what is allowed.
    """
    _check_arguments(pipeline, request)
    if request.edit_image is not None:
        _open_image(request.edit_image)


def _check_arguments(pipeline: Any, request: Request) -> None:
    """Refuse too few steps, arguments that the pipeline does not take, and a size that it would round."""
    check_steps(pipeline, request)
    check_extra(pipeline, request)
    factors = {side: getattr(pipeline, f"{side}_division_factor", 1) for side in ("height", "width")}
    check_size(pipeline, request, factors)


def generate(pipeline: Any, request: Request, tick: Tick = NO_TICK) -> Generation:
    """Run DiffSynth's own ``__call__``, keep the latents that it decodes, and tell of the steps.

    Raises:
        LoraperfError: too few steps, an argument that the pipeline does not take, a size that it would round, or
            an edit image that cannot be read.
    """
    _check_arguments(pipeline, request)
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "cfg_scale": request.cfg,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.steps,
        "seed": request.seed,
        "progress_bar_cmd": partial(_told, tick),
        **request.extra,
    }
    if request.edit_image is not None:
        arguments["edit_image"] = _open_image(request.edit_image)
    with warnings_shown(), decoded_latents(decoder(pipeline)) as latents:
        image = pipeline(**arguments)
    return Generation(latents[-1], image if has_image(pipeline) else None)


def _told(tick: Tick, timesteps: Iterable[Any]) -> Iterator[Any]:
    for timestep in timesteps:
        tick()
        yield timestep
    tick()


def _open_image(path: str) -> Any:
    from PIL import Image  # noqa: PLC0415 - only where a request edits an image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise LoraperfError(f"request: edit_image {path!r} cannot be read: {error}") from error


@contextlib.contextmanager
def decoded_latents(vae: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what the VAE is asked to decode; it is decoded all the same.

    Some pipelines call ``vae.decode``, others the decoder itself, whose ``forward`` runs.
    """
    seen: list[torch.Tensor] = []
    name = "decode" if hasattr(vae, "decode") else "forward"
    decode: Callable[..., Any] = getattr(vae, name)

    def tapped(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(latents)
        return decode(latents, *args, **kwargs)

    own = vars(vae).get(name)
    setattr(vae, name, tapped)
    try:
        yield seen
    finally:
        delattr(vae, name)
        if own is not None:
            setattr(vae, name, own)
