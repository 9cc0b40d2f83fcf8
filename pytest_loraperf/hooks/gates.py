"""The gates of a test: read from its markers, and refused where they could judge nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.markers import MARKERS
from pytest_loraperf.specs import NOTHING_STAYS, READERS, Gates, MarkerError
from pytest_loraperf.strategies import ALL, CONTROL, NO_LORA, REFERENCE, SHIPPED

if TYPE_CHECKING:
    import pytest

    from pytest_loraperf.strategies import Strategies

Spec = TypeVar("Spec")


@dataclass
class MarkerReport:
    """What is wrong with the markers of a whole session, collected for one usage error."""

    problems: list[str] = field(default_factory=list)

    def add(self, item: pytest.Item, marker: str, error: Exception) -> None:
        """Note one marker of one test."""
        self.problems.append(f"  {item.nodeid}: @pytest.mark.{marker}: {error}")

    def message(self) -> str:
        """The usage error."""
        tests = "test has a marker" if len(self.problems) == 1 else "tests have markers"
        return "\n".join([f"loraperf: {len(self.problems)} {tests} that cannot be used:", *self.problems])


def read_gates(item: pytest.Item, report: MarkerReport) -> Gates:
    """Turn the markers of one test into its gates; what cannot be read goes into the report."""
    found: dict[str, list[Any]] = {name: [] for name in READERS}
    for mark in item.iter_markers():
        if mark.name in READERS:
            try:
                found[mark.name].append(_call(READERS[mark.name], mark))
            except LoraperfError as error:
                report.add(item, mark.name, error)
    return Gates(
        strategies=tuple(name for names in reversed(found["lora_strategy"]) for name in names),
        latency=_specs(found["latency_budget"]),
        vram=_specs(found["vram_budget"]),
        faster=_specs(found["faster_than"]),
        equivalent=_specs(found["output_equivalent"]),
        needs=_specs(found["needs_gpu"]),
        allowed=_specs(found["allow_order"]),
        effect=next(iter(found["lora_effect"]), None),  # the closest one
        leak=next(iter(found["vram_leak"]), None),
    )


OF_OURS = tuple(strategy.name for strategy in (*SHIPPED, NO_LORA))
"""The strategies that have a fixture of their own."""
GATES_OF_ONE = "latency_budget, faster_than, output_equivalent, lora_effect or vram_budget"


def check_references(item: pytest.Item, gates: Gates, strategies: Strategies, report: MarkerReport) -> None:
    """Check the names in a test's markers, and that the test has something for its gates to measure."""
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    if "gpu_workload" not in fixtures:
        # With gpu_workload a reference may also be a workload that the test registers when it runs.
        for name in dict.fromkeys(gates.references):
            _check_strategy(item, name, strategies, report)
    for name in gates.strategies:
        if name != ALL:
            _check_strategy(item, name, strategies, report)
    pipeline = has_pipeline(fixtures, strategies)
    if gates.effect and not pipeline:
        report.add(item, "lora_effect", MarkerError("needs lora_pipeline or a strategy's own fixture in the test"))
    if gates.leak and builds_pipelines(fixtures, strategies):
        stays = (
            "the test uses strategies' pipelines, which stay built for later tests; hold tests of your own code"
        )
        report.add(item, "vram_leak", MarkerError(stays))
    if not (pipeline or "request" in fixtures) and any(budget.phase == "resident" for budget in gates.vram):
        report.add(item, "vram_budget", MarkerError(NOTHING_STAYS))
    _check_subject(item, gates, strategies, report)
    _check_is_about_one(item, gates, report)
    if gates.strategies and "lora_pipeline" not in fixtures:
        report.add(item, "lora_strategy", MarkerError("the test does not use the fixture lora_pipeline"))
    if gates.timed and not pipeline and "gpu_workload" not in fixtures:
        wants = "needs lora_pipeline, a strategy's own fixture or gpu_workload in the test"
        used = [marker for marker, references in _references(gates).items() if references]
        report.add(item, " and ".join(used), MarkerError(wants))


def _check_is_about_one(item: pytest.Item, gates: Gates, report: MarkerReport) -> None:
    """Refuse gates on several pipelines, and strategies that are named where they choose none."""
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    several = [f"{name}_pipeline" for name in (*OF_OURS, "lora") if f"{name}_pipeline" in fixtures]
    if len(several) > 1 and (gates.timed or gates.effect or gates.vram):
        what_to_do = "gates are about one pipeline; name the others in the markers, or race them with lora_race"
        report.add(item, GATES_OF_ONE, MarkerError(f"the test uses {' and '.join(several)}, and {what_to_do}"))
    seen = "lora_pipeline" in getattr(getattr(item, "callspec", None), "params", ())
    if gates.strategies and "lora_pipeline" in fixtures and not seen:
        late = (
            "in pytest.param it comes too late to choose the pipeline; mark the test, or parametrize lora_pipeline"
        )
        report.add(item, "lora_strategy", MarkerError(late))


def _check_subject(item: pytest.Item, gates: Gates, strategies: Strategies, report: MarkerReport) -> None:
    """Refuse gates that cannot fail, or mean nothing, for the one strategy that a test is about."""
    subject = _only_subject(item, gates, strategies)
    if subject is None:
        return
    if subject in gates.references:
        what_to_do = "say with lora_strategy which strategies the test is about, or name another reference"
        report.add(item, _comparing(gates, subject), MarkerError(f"compares {subject} with itself; {what_to_do}"))
    if gates.effect and subject == CONTROL:
        report.add(item, "lora_effect", MarkerError(f"{CONTROL} has no LoRA; name a strategy that uses it"))


def _only_subject(item: pytest.Item, gates: Gates, strategies: Strategies) -> str | None:
    """Return the strategy that a test is about, or None where it has several, a callable or none.

    Of several one may be the reference: ``lora_strategy("all")`` names that too.
    """
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    own = [name for name in strategies if f"{name}_pipeline" in fixtures]
    if "lora_pipeline" in fixtures:
        parametrized = "lora_pipeline" in getattr(getattr(item, "callspec", None), "params", ())
        own += gates.strategies if gates.strategies or parametrized else (REFERENCE,)
    alone = len(own) == 1 and "gpu_workload" not in fixtures
    return own[0] if alone else None


def _comparing(gates: Gates, subject: str) -> str:
    """Return the names of the markers that name this reference."""
    return " and ".join(marker for marker, references in _references(gates).items() if subject in references)


def _references(gates: Gates) -> dict[str, list[str | None]]:
    """Return what each of the markers that a test has compares with; a budget may compare with nothing."""
    return {
        "latency_budget": [budget.of for budget in gates.latency],
        "faster_than": [each.reference for each in gates.faster],
        "output_equivalent": [each.to for each in gates.equivalent],
    }


def has_pipeline(fixtures: Sequence[str], strategies: Strategies) -> bool:
    """Whether one of these fixtures is a strategy's pipeline."""
    known = {f"{name}_pipeline" for name in (*strategies, "lora")}
    return not known.isdisjoint(fixtures)


def builds_pipelines(fixtures: Sequence[str], strategies: Strategies) -> bool:
    """Whether one of these fixtures is a strategy's pipeline, or builds some to race them."""
    return "lora_race" in fixtures or has_pipeline(fixtures, strategies)


def _check_strategy(item: pytest.Item, name: str, strategies: Strategies, report: MarkerReport) -> None:
    try:
        strategies.find(name)
    except LoraperfError as error:
        report.problems.append(f"  {item.nodeid}: {error}")


def _specs(found: Iterable[Spec]) -> tuple[Spec, ...]:
    return tuple(dict.fromkeys(found))


def _call(function: Callable[..., Any], mark: pytest.Mark) -> object:
    try:
        inspect.signature(function).bind(*mark.args, **mark.kwargs)
    except TypeError as error:
        usage = MARKERS[mark.name].partition(":")[0]
        raise MarkerError(f"{error}; it is {usage}") from error
    return function(*mark.args, **mark.kwargs)
