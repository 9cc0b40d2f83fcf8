"""What pytest's header says; imported in every run, so it imports little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_loraperf import __version__
from pytest_loraperf.units import format_size

if TYPE_CHECKING:
    from pytest_loraperf.options import Settings
    from pytest_loraperf.session import Session


def header(session: Session) -> str:
    """Return one line: what the run is held to, and on what; the device is looked up only for a budget."""
    settings = session.settings
    if settings.forecast:
        return _forecast(settings)
    if settings.gpu_budget is None:
        return f"loraperf: {__version__}, model {settings.model}, device {settings.device}, no --gpu-budget"
    device = session.device
    budget = f"--gpu-budget={format_size(settings.gpu_budget)} ({settings.gpu_budget} bytes)"
    if not device.is_cuda:
        return f"loraperf: {__version__}, {budget} of counted tensor bytes: no CUDA here, on the CPU"
    on = f"{device.torch_name} {device.name} {format_size(device.total)}"
    if settings.gpu_budget_mode == "cap":
        return f"loraperf: {__version__}, {budget} is all of VRAM that this run has of {on}"
    return f"loraperf: {__version__}, {budget} of VRAM, {on}"


def _forecast(settings: Settings) -> str:
    from pytest_loraperf.forecast.card import H100  # noqa: PLC0415 - only in a forecast

    size = settings.gpu_budget
    budget = "no --gpu-budget" if size is None else f"--gpu-budget={format_size(size)} ({size} bytes)"
    return (
        f"loraperf: {__version__}, {budget} of forecast VRAM ({H100.name}): pipelines of fixtures alone, "
        "nothing is measured"
    )
