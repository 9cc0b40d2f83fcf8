"""Forecasts as results: the same numbers in the same places as those that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import torch

from pytest_loraperf import __version__
from pytest_loraperf.forecast.forecast import Forecast
from pytest_loraperf.report.naming import Built, endings
from pytest_loraperf.report.results import Machine, Results, SetupStep, StrategyResult, VerdictRecord, Vram
from pytest_loraperf.session import Session

KIND = "forecast VRAM"


def forecast_results(session: Session) -> Results:
    """Return all that was forecast; where a strategy was for several requests, the most that it needs."""
    forecasts = list(session.forecasts.values())
    first = forecasts[0]
    labels = _labels(session)
    by_name: dict[str, list[Forecast]] = {}
    for each in forecasts:
        by_name.setdefault(labels[id(each)], []).append(each)
    order = list(session.strategies)
    return Results(
        plugin_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=session.command,
        machine=Machine(
            device="forecast",
            name=session.forecaster.card.name,
            torch=torch.__version__,
            backend=first.backend,
            memory_kind=KIND,
        ),
        model=str(first.model),
        request=first.request.to_json(),
        strategies={
            label: _strategy(found)
            for label, found in sorted(by_name.items(), key=lambda pair: order.index(pair[1][0].name))
        },
        verdicts=tuple(_verdicts(session, labels)),
        notes=tuple(dict.fromkeys((*session.notes, *(note for each in forecasts for note in each.notes)))),
    )


def _labels(session: Session) -> dict[int, str]:
    """Return the name in the results of each forecast, by its ``id``."""
    built = {key[1:3]: Built(str(each.model), each.adapters) for key, each in session.forecasts.items()}
    told = dict(zip(built, endings(built.values()), strict=True))
    return {id(each): f"{each.name}{told[key[1:3]]}" for key, each in session.forecasts.items()}


def _verdicts(session: Session, labels: Mapping[int, str]) -> Iterable[VerdictRecord]:
    for record in session.records.values():
        for verdict in record.verdicts:
            yield VerdictRecord(
                nodeid=record.nodeid,
                strategy=labels.get(id(record.forecast), record.strategy),
                code=verdict.code,
                status=str(verdict.status),
                message=verdict.message,
            )


def _strategy(found: list[Forecast]) -> StrategyResult:
    first = found[0]
    return StrategyResult(
        steps=first.steps,
        scheme=first.scheme,
        scheme_reason=first.scheme_reason,
        mistake=first.mistake,
        setup=tuple(
            SetupStep(
                step=step.name,
                seconds=0.0,
                layers=step.effect.layers,
                layers_total=step.effect.total,
                vram_peak=step.peak,
                note="forecast: not timed",
            )
            for step in first.setup
        ),
        requests=tuple(each.request.to_json() for each in found),
        adapters=first.adapters,
        vram=Vram(
            setup_peak=_most(each.phases.get("setup", 0) for each in found),
            resident=_most(each.phases.get("resident", 0) for each in found),
            runtime_peak=_most(each.phases.get("runtime", 0) for each in found),
            allocated_peak=_most(each.allocated for each in found),
        ),
        error=next((each.error for each in found if each.error), None),
        model=str(first.model),
    )


def _most(sizes: Iterable[int]) -> int | None:
    return max(sizes) or None
