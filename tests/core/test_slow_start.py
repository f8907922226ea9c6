"""How a learnt cap begins: which number of calls follows which."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from math import exp, log

import pytest

from proxy.core.leg import Leg
from proxy.core.slow_start import SlowStart
from proxy.core.usual import Usual

EVEN = (0.99, 1.01)
UNEVEN = (0.5, 2.0)


class Start:
    """Plays legs: `goes(slots, seconds)` is the number of calls that a leg of such answers is followed by."""

    def __init__(self, factors: tuple[float, ...] = EVEN) -> None:
        self.it = SlowStart()
        self._usual = Usual()
        self._factors: Iterator[float] = cycle(factors)

    def goes(self, slots: int, seconds: float) -> int:
        leg = Leg(slots, 0.0, self.it.leg_calls(slots), 9.0)
        for _ in range(leg.size):
            leg.enter(slots, slots, 0.0)
        for _ in range(leg.size):
            silent_s = seconds * next(self._factors)
            leg.done += 1
            leg.add(silent_s, log(silent_s))
        return round(exp(self.it.next(leg, self._usual)))


def test_half_is_tried_first_and_then_twice_as_many_until_answers_come_later() -> None:
    start = Start()
    assert [start.goes(slots, 0.1) for slots in (16, 8, 32, 64)] == [8, 32, 64, 128]
    assert start.it.is_on
    assert start.goes(128, 0.16) == 80, "128 calls of 0.16 s are as many a second as 80 of 0.1 s"
    assert not start.it.is_on


def test_a_knee_is_not_believed_to_be_below_what_did_not_wait() -> None:
    start = Start()
    assert [start.goes(slots, 0.1) for slots in (16, 8)] == [8, 32]
    assert start.goes(32, 0.3) == 16


def test_it_goes_down_by_half_as_long_as_that_is_faster_in_proportion() -> None:
    start = Start()
    assert start.goes(16, 0.6) == 8
    assert start.goes(8, 0.2) == 4
    assert start.it.is_on
    assert start.goes(4, 0.1) == 2
    assert start.goes(2, 0.1) == 4
    assert not start.it.is_on


def test_it_goes_down_to_where_the_higher_number_was_served() -> None:
    start = Start()
    assert start.goes(16, 0.18) == 8
    assert start.goes(8, 0.1) == 9, "16 calls of 0.18 s are as many a second as 9 of 0.1 s"
    assert not start.it.is_on


def test_where_it_may_not_go_further_down_it_stays() -> None:
    start = Start()
    assert start.goes(8, 0.6) == 4
    assert start.goes(4, 0.2) == 2
    assert start.goes(4, 0.2) == 4, "fewer are not allowed"
    assert not start.it.is_on


def test_what_chance_may_have_done_is_tried_again_once() -> None:
    start = Start(UNEVEN)
    assert [start.goes(slots, 0.1) for slots in (16, 8)] == [8, 32]
    assert start.goes(32, 0.2) == 16
    assert start.it.is_on
    assert start.goes(16, 0.1) == 32
    assert start.goes(32, 0.2) == 16
    assert not start.it.is_on


def test_those_that_still_wait_are_not_the_short_ones() -> None:
    """A leg is over when nine of ten are answered: without the last it would be one of short calls."""
    leg = Leg(8, 0.0, 10, 9.0)
    for _ in range(10):
        leg.enter(8, 8, 0.0)
    for silent_s in (0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.8):
        leg.done += 1
        leg.add(silent_s, log(silent_s))
    of_ten = [0.1] * 4 + [0.2] * 4 + [0.8] * 2
    assert leg.level_of_all == pytest.approx(sum(map(log, of_ten)) / 10)
    assert leg.level < leg.level_of_all
