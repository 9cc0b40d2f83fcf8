"""The results of several workers as those of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

from pytest_loraperf.report.naming import Built, numbered, plain
from pytest_loraperf.report.results import Machine, Results, StrategyResult, VerdictRecord, Vram

TAKEN_TOGETHER = ("samples_s", "gpu_s", "steps_s", "latency", "limit", "ratio", "requests")
"""The fields of a strategy that are of the same rounds, and so come from the same worker."""


def merge(parts: Sequence[Results], order: Iterable[str]) -> Results:
    """Return one run's results from those of its workers, at least one; ``order`` is that of the strategies.

    What several workers measured of a strategy is not thrown together: its samples are those of the worker that
    took the most, its memory the most that any saw. Verdicts, comparisons and notes are all kept.
    """
    measured = [part for part in parts if part.machine.device] or list(parts)
    first = Built.first(measured[0])
    told = [{_label(name, part, first): each for name, each in part.strategies.items()} for part in parts]
    names = dict.fromkeys((*order, *(name for strategies in told for name in strategies)))
    found = {name: [strategies[name] for strategies in told if name in strategies] for name in names}
    rates = next((part.machine.rates for part in measured if part.machine.rates), None)
    return replace(
        measured[0],
        machine=replace(measured[0].machine, rates=rates),
        created=max(part.created for part in parts),
        strategies={name: _strategy(several) for name, several in found.items() if several},
        verdicts=tuple(_relabelled(verdict, part, first) for part in parts for verdict in part.verdicts),
        comparisons=tuple(taken for part in parts for taken in part.comparisons),
        notes=(*dict.fromkeys(note for part in parts for note in part.notes), *_unlike(measured)),
    )


def _label(name: str, part: Results, first: Built) -> str:
    """Return the name of a strategy of one part in the whole, whose first was built from these."""
    return plain(name) + Built.of(part.strategies[name], part).beside(first) + numbered(name)


def _relabelled(verdict: VerdictRecord, part: Results, first: Built) -> VerdictRecord:
    """Return a verdict on a strategy of one part by its name in the whole."""
    name = verdict.strategy or ""
    return replace(verdict, strategy=_label(name, part, first)) if name in part.strategies else verdict


def _unlike(parts: Sequence[Results]) -> list[str]:
    machines = dict.fromkeys(_named(part.machine) for part in parts)
    if len(machines) < 2:  # noqa: PLR2004 - one is like itself
        return []
    return [f"warning: the workers measured on unlike devices: {', '.join(machines)}; compare within one alone"]


def _named(machine: Machine) -> str:
    return f"{machine.name} (torch {machine.torch})"


def _strategy(several: Sequence[StrategyResult]) -> StrategyResult:
    most, *others = sorted(several, key=lambda found: len(found.samples_s), reverse=True)
    empty = StrategyResult()
    lacking: Mapping[str, object] = {
        each.name: next((value for found in others if (value := getattr(found, each.name))), None)
        for each in fields(StrategyResult)
        if each.name not in TAKEN_TOGETHER and getattr(most, each.name) == getattr(empty, each.name)
    }
    told = {name: value for name, value in lacking.items() if value}
    if most.samples_s:
        told["error"] = most.error  # what another worker could not build, this one did
    return replace(most, **told, vram=_vram([found.vram for found in several]))  # type: ignore[arg-type]  # names of fields


def _vram(several: Sequence[Vram]) -> Vram:
    sizes = {
        each.name: [size for found in several if (size := getattr(found, each.name)) is not None]
        for each in fields(Vram)
    }
    return Vram(**{name: max(found, default=None) for name, found in sizes.items()})
