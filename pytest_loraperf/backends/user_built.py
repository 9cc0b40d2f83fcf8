"""Pipelines that the user's own function builds."""

from __future__ import annotations

from typing import Any

import torch

from pytest_loraperf.errors import ModelError
from pytest_loraperf.models import UserBuilt


def call_users(model: UserBuilt, weights_on: str) -> Any:
    """Call the user's function, and return what it returned.

    Raises:
        ModelError: it raised.
    """
    try:
        return model.build(device=weights_on)
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise ModelError(
            f"the build function {model.name} raised {type(error).__name__}: {''.join(first)}"
        ) from error


def build_users(model: UserBuilt, compute: str, weights_on: str) -> Any:
    """Call the user's function; DiffSynth's pipeline that it returned computes on ``compute``.

    Raises:
        ModelError: it raised, or returned something else.
    """
    pipe = call_users(model, weights_on)
    if not isinstance(getattr(pipe, "dit", None), torch.nn.Module):
        raise ModelError(
            f"the build function {model.name} returned {type(pipe).__name__}; "
            "a DiffSynth pipeline with a dit is needed, such as QwenImagePipeline"
        )
    # DiffSynth set it when it was built, for where the weights are; 2.x sets both.
    pipe.device = compute
    if hasattr(pipe, "device_type"):
        pipe.device_type = torch.device(compute).type
    return pipe
