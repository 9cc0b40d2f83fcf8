"""Sweeps: the same pipelines at other resolutions, steps or numbers of images, built once and never reloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_loraperf.errors import LoraperfError, said
from pytest_loraperf.request import Request
from pytest_loraperf.writable import check_page

if TYPE_CHECKING:
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.report.results import SweepPoint
    from pytest_loraperf.session import Session

PICTURES = (".svg", ".png", ".html")
AXES = ("resolution", "height", "width", "steps", "batch")
MOST_IMAGES = 1000
"""Images a sample: each is a generation, one after another."""
ALLOWED = f"write one of {', '.join(AXES)} with whole numbers, such as resolution=512,768,1024"


@dataclass(frozen=True)
class Sweep:
    """What is changed, and the values that it takes; resolution is height and width, in pixels."""

    axis: str
    values: tuple[int, ...]

    def requests(self, base: Request, batch: int, value: int) -> tuple[Request, ...]:
        """Return the requests of one point: as many as there are images."""
        if self.axis == "batch":
            return images(base, value)
        sides = ("height", "width") if self.axis == "resolution" else (self.axis,)
        return images(base.with_changes(**dict.fromkeys(sides, value)), batch)


def images(request: Request, count: int) -> tuple[Request, ...]:
    """Return a request for each of so many images, which differ in their seeds."""
    return tuple(request.with_changes(seed=request.seed + number) for number in range(count))


def parse_sweep(text: str) -> Sweep:
    """Read ``AXIS=VALUE,VALUE``.

    Raises:
        LoraperfError: the axis is unknown, or a value is no positive whole number.
    """
    axis, _, rest = text.partition("=")
    words = [word.strip() for word in rest.split(",")]
    if axis not in AXES or not all(word.isdecimal() and int(word) for word in words):
        raise LoraperfError(f"--sweep: got {text!r}; {ALLOWED}")
    return Sweep(axis, tuple(dict.fromkeys(map(int, words))))


def check_sweep(batch: int, sweeps: Sequence[Sweep], plot: Path | None, others: Iterable[Path]) -> None:
    """Refuse before anything is measured what could not be done in the end.

    Raises:
        LoraperfError: the batch is no number of images, an axis is swept twice, or the plot cannot be drawn.
    """
    if not 1 <= batch <= MOST_IMAGES:
        raise LoraperfError(f"--batch: got {batch}; 1 to {MOST_IMAGES} images are allowed")
    for sweep in sweeps:
        if sweep.axis == "batch" and max(sweep.values) > MOST_IMAGES:
            raise LoraperfError(f"--sweep: batch={max(sweep.values)}; 1 to {MOST_IMAGES} images are allowed")
    axes = [sweep.axis for sweep in sweeps]
    twice = next((axis for axis in axes if axes.count(axis) > 1), None)
    if twice is not None:
        raise LoraperfError(f"--sweep: {twice} is swept twice; write all its values in one list")
    if plot is None:
        return
    if not sweeps:
        raise LoraperfError("--plot: there is nothing to draw without --sweep; --html draws the strategies")
    if plot.suffix not in PICTURES:
        raise LoraperfError(f"--plot={plot}: the name must end in {', '.join(PICTURES)}")
    if plot.resolve() in {other.resolve() for other in others}:
        raise LoraperfError(f"--plot={plot} is the file of another option too; name another")
    check_page(plot, "--plot")


def take_sweeps(
    session: Session,
    bench: Bench,
    names: Sequence[str],
    base: Request,
    batch: int,
    sweeps: Sequence[Sweep],
    done: Callable[[], None],
) -> Iterator[SweepPoint]:
    """Yield each point as it is measured, strategy by strategy, so that each pipeline stays where it is.

    A point that fails, as one too large for the card does, costs the others nothing. ``done`` is called after
    each.
    """
    for name in names:
        for sweep in sweeps:
            for value in sweep.values:
                yield _point(session, bench, name, sweep, value, sweep.requests(base, batch, value))
                done()


def _point(
    session: Session, bench: Bench, name: str, sweep: Sweep, value: int, requests: tuple[Request, ...]
) -> SweepPoint:
    from pytest_loraperf.bench.workloads import StrategyWorkload  # noqa: PLC0415 - imports torch
    from pytest_loraperf.measure.pairs import Measurer  # noqa: PLC0415 - imports torch
    from pytest_loraperf.report.results import SweepPoint  # noqa: PLC0415 - start-up
    from pytest_loraperf.run.gathering import latency_of  # noqa: PLC0415 - imports numpy

    count = len(requests)
    session.tell(f"{name}: {sweep.axis} {value}")
    try:
        # It gives the unused cache back, before and after, so that no point has the segments of another.
        peak = bench.runtime_peak_of(name, requests[0])
        own = session.measurer
        # The rounds of a sweep are none of the strategy's: those were of the request in the table.
        measurer = Measurer(own.plan, own.watch, own.tell, own.observe, own.alone_on_device)
        taken = measurer.alone(StrategyWorkload(bench, name, requests))
    except Exception as error:  # noqa: BLE001 - what one point raises must not cost the others their results
        return SweepPoint(axis=sweep.axis, value=value, strategy=name, images=count, error=said(error))
    latency = latency_of(tuple(seconds / count for seconds in taken))
    return SweepPoint(
        axis=sweep.axis,
        value=value,
        strategy=name,
        images=count,
        latency=latency,
        image_s_with_setup=latency.median_s + bench.arms[name].rebuild_seconds / count if latency else None,
        runtime_peak=peak,
        over=_over(session, f"{name} at {sweep.axis} {value}", peak),
    )


def _over(session: Session, who: str, peak: int) -> str | None:
    """Say by how much a point is over the card of ``--gpu-budget``, None where it is not."""
    from pytest_loraperf.verdict.gates import judge_vram  # noqa: PLC0415 - start-up

    budget = session.settings.gpu_budget
    if budget is None:
        return None
    verdict = judge_vram(who, "runtime", peak, budget, {}, session.ledger.meter.kind)
    return None if verdict.passed else verdict.message
