"""Pipelines that the user's own function builds."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from pytest_loraperf.errors import ModelError, place_of
from pytest_loraperf.models import UserBuilt

_BUILT: weakref.WeakSet[Any] = weakref.WeakSet()
"""What users' functions returned, as long as it lives: steps have changed it since."""


def call_users(model: UserBuilt, weights_on: str) -> Any:
    """Call the user's function, and return what it returned.

    Raises:
        ModelError: it raised, ended the process, or returned what it had returned before.
    """
    try:
        pipe = model.build(device=weights_on)
    except (Exception, SystemExit) as error:
        first = "".join(str(error).strip().splitlines()[:1])
        place = place_of(error, but=__file__)
        raise ModelError(
            f"the build function {model.name} raised {type(error).__name__}: {first}{place}"
        ) from error
    _check_is_new(model, pipe)
    return pipe


def _check_is_new(model: UserBuilt, pipe: Any) -> None:
    """Refuse a pipeline, or a denoiser, that a strategy has changed already.

    Raises:
        ModelError: it was built before.
    """
    parts = [pipe, getattr(pipe, "dit", None), getattr(pipe, "transformer", None)]
    modules = [part for part in parts if part is pipe or isinstance(part, torch.nn.Module)]
    try:
        again = any(part in _BUILT for part in modules)
        _BUILT.update(modules)
    except TypeError:
        return  # what cannot be hashed or referred to weakly cannot be known again
    if again:
        raise ModelError(
            f"the build function {model.name} returned a pipeline, or its denoiser, that it had returned before; "
            "steps have changed it since, so build a new one in each call, without a cache"
        )


def build_users(model: UserBuilt, compute: str, weights_on: str) -> Any:
    """Call the user's function; DiffSynth's pipeline that it returned computes on ``compute``.

    Raises:
        ModelError: it raised, or returned something else.
    """
    pipe = call_users(model, weights_on)
    dit = getattr(pipe, "dit", None)
    if not isinstance(dit, torch.nn.Module):
        raise ModelError(
            f"the build function {model.name} returned {type(pipe).__name__}"
            f"{' whose dit is None' if dit is None and hasattr(pipe, 'dit') else ''}; "
            "a DiffSynth pipeline with a dit is needed, such as QwenImagePipeline"
        )
    if any(parameter.device.type == "meta" for parameter in dit.parameters()):
        raise ModelError(
            f"the build function {model.name} returned a dit without values, on the device meta; load its weights"
        )
    # DiffSynth set it when it was built, for where the weights are; 2.x sets both.
    pipe.device = compute
    if hasattr(pipe, "device_type"):
        pipe.device_type = torch.device(compute).type
    return pipe
