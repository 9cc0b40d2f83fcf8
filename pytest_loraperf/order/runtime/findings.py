"""A broken rule as the recorder tells it: the lines for the user, and what suppresses it in the source."""

from __future__ import annotations

import linecache
from dataclasses import dataclass

from pytest_loraperf.order.events import Event, Place
from pytest_loraperf.order.noqa import suppresses
from pytest_loraperf.order.rules.base import Violation
from pytest_loraperf.order.runtime.sites import Sites


@dataclass(frozen=True)
class Finding:
    """A broken rule; ``raised`` where the call did not go through, so that nothing was done."""

    code: str
    message: str
    sites: tuple[str, ...]
    raised: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """The message, then each call with its line of source."""
        return (f"loraperf {self.code}: {self.message}", *(f"  {site}" for site in self.sites))


def describe(violation: Violation, sites: Sites, *, raised: bool = False) -> Finding:
    """Put a broken rule into words."""
    shown = [f"here:  {_site(violation.event, sites)}"]
    if violation.earlier is not None and violation.earlier.where != violation.event.where:
        shown.append(f"after: {_site(violation.earlier, sites)}")
    return Finding(violation.code, violation.message, tuple(shown), raised)


def is_suppressed(violation: Violation, sites: Sites) -> bool:
    """Whether ``# noqa: LRP102`` stands on the line of the operation, or on the one that called its helper."""
    places = (violation.event.where, violation.event.via)
    return any(suppresses(_source(place, sites), violation.code) for place in places if place is not None)


def _site(event: Event, sites: Sites) -> str:
    via = f" (called from {event.via})" if event.via is not None else ""
    return f"{event.where}: {_source(event.where, sites).strip() or event.call}{via}"


def _source(place: Place, sites: Sites) -> str:
    return linecache.getline(sites.path(place), place.line)
