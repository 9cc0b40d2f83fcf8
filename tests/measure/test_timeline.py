"""Memory over a generation, with a meter and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from pytest_loraperf.measure.timeline import MOST, MemoryWatch, Moment, thinned


class Card:
    """Memory that holds what a test says."""

    kind = "VRAM"

    def __init__(self) -> None:
        self.reserved = self.live = self.top = self.live_top = 0

    def hold(self, reserved: int, live: int) -> None:
        self.reserved, self.live = reserved, live
        self.top, self.live_top = max(self.top, reserved), max(self.live_top, live)

    @contextmanager
    def watching(self) -> Iterator[None]:
        yield

    def reset_peak(self) -> None:
        self.top, self.live_top = self.reserved, self.live

    def level(self) -> int:
        return self.reserved

    def reserved_now(self) -> int:
        return self.reserved

    def peak(self) -> int:
        return self.top

    def allocated(self) -> int:
        return self.live

    def allocated_peak(self) -> int:
        return self.live_top

    def free(self) -> int:
        return 0

    def overhead(self) -> int:
        return 100


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_moments_are_those_of_steps_and_have_the_bytes_of_this_generation_alone() -> None:
    card, clock = Card(), Clock()
    card.hold(50, 40)
    watch = MemoryWatch(card, (10, 5), calls=False, clock=clock)
    with watch.looking():
        clock.now = 6.0
        watch.tick()
        card.hold(70, 60)
        clock.now = 8.0
        watch.tick()
        card.hold(55, 45)
        clock.now = 9.0
    assert watch.timeline.steps == (1.0, 3.0)
    assert watch.timeline.moments == (
        Moment(0.0, 140, 35),
        Moment(1.0, 140, 35),
        Moment(3.0, 160, 55),
        Moment(4.0, 145, 40),
    )


def test_a_peak_between_two_looks_is_seen() -> None:
    card = Card()
    watch = MemoryWatch(card, calls=False)
    with watch.looking():
        card.hold(900, 800)
        card.hold(200, 100)
        watch.tick()
    assert [(moment.needed, moment.live) for moment in watch.timeline.moments] == [
        (100, 0),
        (1000, 800),
        (300, 100),
    ]


def test_tensors_in_a_gap_of_others_are_needed_all_the_same() -> None:
    card = Card()
    card.hold(50, 50)
    watch = MemoryWatch(card, (50, 10), calls=False)
    with watch.looking():
        pass
    assert watch.timeline.moments[0][1:] == (140, 40)


@pytest.mark.parametrize(("calls", "moments"), [(True, 2 + 2 * 3), (False, 2)])
def test_calls_of_modules_are_looked_at_if_they_are_to_be(calls: bool, moments: int) -> None:
    before = torch.nn.Module.__call__
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    watch = MemoryWatch(Card(), calls=calls, gap=0)
    with watch.looking():
        model(torch.zeros(1, 2))
    assert len(watch.timeline.moments) == moments
    assert torch.nn.Module.__call__ is before


def test_calls_are_looked_at_no_more_often_than_is_worth_it() -> None:
    clock = Clock()
    model = torch.nn.Sequential(*(torch.nn.ReLU() for _ in range(10)))
    for each in model:
        each.register_forward_hook(lambda *_: setattr(clock, "now", clock.now + 0.5))
    watch = MemoryWatch(Card(), gap=1.0, clock=clock)
    with watch.looking():
        model(torch.zeros(1, 2))
    assert [moment.seconds for moment in watch.timeline.moments] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("many", [3, MOST - 1, MOST, MOST + 1, 3 * MOST, 10_007])
def test_of_many_moments_the_ends_and_the_highest_stay(many: int) -> None:
    moments = [Moment(float(number), (number * 7919) % many, number) for number in range(many)]
    kept = thinned(moments, MOST)
    assert len(kept) <= MOST
    assert (kept[0], kept[-1]) == (moments[0], moments[-1])
    assert max(moment.needed for moment in kept) == many - 1
    assert [moment.seconds for moment in kept] == sorted(moment.seconds for moment in kept)
